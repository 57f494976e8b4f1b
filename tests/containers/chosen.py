"""What selectors say of the containers of every runtime."""

from __future__ import annotations

from typing import Any

from tests.containers.grounds import Runtime

from faultline.api.selector import Selector
from faultline.errors import TargetGone
from faultline.injection import choosing
from faultline.places import containers


class Chosen:
    """The tests; each module names its runtime by the fixture `runtime`."""

    def test_selectors_choose_it_by_name_image_and_label(self, runtime: Runtime) -> None:
        def hit(**asked: Any) -> set[str]:
            selector = Selector.model_validate({"containers": asked, "mode": "all"})
            try:
                found = choosing.choose("it", selector, "seed")
            except TargetGone:
                return set()
            return {each.target.container for each in found.targets}

        box, one = (containers.find(f"standing-{each}").id for each in ("box", "one"))
        assert hit(name="standing-*") == {box, one}
        assert box in hit(image="box:1")
        assert one not in hit(image="box:1")
        assert hit(image="fltest/box:*", name="standing-*") | hit(
            image="*/fltest/box:*", name="standing-*"
        ) == {box}
        assert hit(labels={"shop": "standing-box"}) == {box}
        assert hit(name="standing-*", image="nobody:*") == set()
