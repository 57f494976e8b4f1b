#!/bin/sh
# Called as: spool-age.sh measure; what it is told stands in the environment, and as JSON on standard
# input. It answers with one JSON object. Names of files are never part of it: they may hold anything.
set -eu
[ "$1" = measure ] || exit 2
folder=$FAULTLINE_PARAMETER_FOLDER

if [ ! -d "$folder" ] || [ ! -r "$folder" ]; then
    # Not 0 and not false: nothing is known of the spool.
    echo '{"ok": null, "text": "there is no such folder, or it cannot be read"}'
    exit 0
fi

count=0 oldest=
for file in "$folder"/*"$FAULTLINE_PARAMETER_SUFFIX"; do
    [ -f "$file" ] && [ ! -L "$file" ] || continue
    # It may have been fetched since the folder was read.
    since=$(stat -c %Y "$file" 2>/dev/null) || continue
    count=$((count + 1))
    if [ -z "$oldest" ] || [ "$since" -lt "$oldest" ]; then oldest=$since; fi
done

if [ "$count" -eq 0 ]; then
    echo '{"value": 0, "text": "nothing waits", "result": {"files": 0}}'
    exit 0
fi
age=$(($(date +%s) - oldest))
[ "$age" -ge 0 ] || age=0
printf '{"value": %d, "since": %d, "text": "%d files wait", "result": {"files": %d}}\n' \
    "$age" "$oldest" "$count" "$count"
