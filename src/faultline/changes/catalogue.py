"""The closed set of change kinds. Importing this loads all undo code there is."""

from __future__ import annotations

from faultline.changes.cgroup_controller import CgroupController
from faultline.changes.cgroup_frozen import CgroupFrozen
from faultline.changes.cgroup_tasks import CgroupTasks
from faultline.changes.classifier import Classifier
from faultline.changes.conntrack_fill import ConntrackFill
from faultline.changes.container_run import ContainerRemoved, ContainerStopped, ProcessEnded
from faultline.changes.disk_fill import DiskFill
from faultline.changes.disk_inodes import DiskInodes
from faultline.changes.dm_table import DmTable
from faultline.changes.file_added import FileAdded
from faultline.changes.file_attributes import FileAttributes
from faultline.changes.file_content import FileContent
from faultline.changes.file_lines import FileLines
from faultline.changes.file_moved import FileMoved
from faultline.changes.hop import Hop
from faultline.changes.host_end import HostEnd
from faultline.changes.io_limit import IoLimit
from faultline.changes.kernel_value import KernelValue
from faultline.changes.kind import Kind
from faultline.changes.link_down import LinkDown
from faultline.changes.mount_readonly import MountReadonly
from faultline.changes.plugin import Plugin
from faultline.changes.process_attribute import ProcessAttribute
from faultline.changes.redirect import Redirect
from faultline.changes.restart import Restart
from faultline.changes.signal import Signalled, Stopped
from faultline.changes.socket_denied import SocketDenied
from faultline.changes.sockets_ended import SocketsEnded
from faultline.changes.swap_off import SwapOff
from faultline.changes.worker import Worker

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        CgroupController(),
        CgroupFrozen(),
        CgroupTasks(),
        Classifier(),
        ConntrackFill(),
        ContainerRemoved(),
        ContainerStopped(),
        DiskFill(),
        DiskInodes(),
        DmTable(),
        FileAdded(),
        FileAttributes(),
        FileContent(),
        FileLines(),
        FileMoved(),
        Restart(),
        Signalled(),
        Stopped(),
        Hop(),
        HostEnd(),
        IoLimit(),
        KernelValue(),
        LinkDown(),
        MountReadonly(),
        Plugin(),
        ProcessEnded(),
        ProcessAttribute(),
        Redirect(),
        SocketDenied(),
        SocketsEnded(),
        SwapOff(),
        Worker(),
    )
}
