"""What runs on an ssh device besides the bundle's own program: shell scripts for any POSIX sh and the tools of every Linux.

They need ``id``, ``uname``, ``mkdir``, ``chmod``, ``touch``, ``cat``, ``dd``, ``wc``, ``head``, ``tail``, ``ls``, ``grep``,
``sha256sum``, ``mv``, ``rm``, ``rmdir`` and ``mktemp``, of GNU or of busybox. Each is sent as one line, so that it also
passes through login shells that do not take lines within quotes. Programs lie in ``bnn-deploy/HASH/runner`` of the first
of these folders that can be written to and executed from: ``$XDG_CACHE_HOME``, ``$HOME/.cache``, ``/tmp``.
"""

from __future__ import annotations

# Names of the folders that programs may lie in, in the order of preference; no path of the device is ever sent back to it.
PLACES = ("xdg", "home", "tmp")
KEPT_PROGRAMS = 4
BLOCK_BYTES = 64 * 1024


def _one_line(*parts: str) -> str:
    return " ".join(line.strip() for part in parts for line in part.strip().splitlines())


_START = """
LC_ALL=C; export LC_ALL; umask 077;
echo bnn-deploy:begin;
problem() { echo "problem=$1"; exit 0; };
place() {
    temporary=${TMPDIR:-/tmp};
    case $1 in
    xdg) folder=${XDG_CACHE_HOME:+$XDG_CACHE_HOME/bnn-deploy} ;;
    home) folder=${HOME:+$HOME/.cache/bnn-deploy} ;;
    *) folder=$temporary/bnn-deploy-$(id -u) ;;
    esac;
};
"""

# Arguments: the first characters of the program's SHA-256 that name its folder, and all of them.
# Prints "system=Linux", "machine=aarch64", "flags=…", "refused=REASON" for each folder that cannot be used, "place=NAME",
# "present=yes|no", and "part=BYTES" of a copy that was interrupted.
OPEN = _one_line(
    _START,
    """
echo "system=$(uname -s)"; echo "machine=$(uname -m)";
echo "flags=$(grep -i -E "^(flags|features)[[:space:]]*:" /proc/cpuinfo 2>/dev/null | head -n 1)";
usable() {
    case $folder in /*) ;; *) return 1 ;; esac;
    reason=$(mkdir -p "$folder" 2>&1) || return 1;
    if [ -L "$folder" ] || ! [ -O "$folder" ]; then reason="$folder belongs to someone else"; return 1; fi;
    reason=$(chmod 700 "$folder" 2>&1) || return 1;
    try=$folder/try.$$;
    reason=$({ echo "#!/bin/sh" > "$try" && chmod 700 "$try"; } 2>&1) && reason=$("$try" 2>&1);
    tried=$?; rm -f "$try"; return $tried;
};
for name in xdg home tmp; do
    reason=""; place $name;
    if usable; then echo "place=$name"; break; fi;
    if [ -n "$reason" ]; then echo "refused=$(echo "$reason" | head -n 1)"; fi;
    folder="";
done;
[ -n "$folder" ] || exit 0;
own=$folder/$1; present=no;
if [ -f "$own/runner" ]; then
    sum=$(sha256sum < "$own/runner");
    if [ "${sum%% *}" = "$2" ] && [ -x "$own/runner" ]; then present=yes; touch "$own"; else rm -f "$own/runner"; fi;
fi;
echo "present=$present";
if [ -f "$own/runner.part" ]; then echo "part=$(wc -c < "$own/runner.part")"; fi
""",
)

# Arguments: place, folder of the program, blocks of BLOCK_BYTES that are there, bytes of the whole, SHA-256; the rest of the
# program on stdin. Prints "problem=REASON", "short=BYTES" when its end is missing, or "done=yes".
# dd writes at a position and never truncates: two commands that copy the same program write the same bytes to the same places.
COPY = _one_line(
    _START,
    f"""
place "$1"; own=$folder/$2; part=$own/runner.part;
discard() {{ rm -f "$part"; rmdir "$own" 2>/dev/null; }};
reason=$(mkdir -p "$own" 2>&1) || problem "$reason";
reason=$(dd of="$part" bs={BLOCK_BYTES} seek="$3" conv=notrunc 2>&1) || {{ discard; problem "$reason"; }};
if [ -f "$part" ]; then
    bytes=$(wc -c < "$part");
    if [ "$bytes" -lt "$4" ]; then echo "short=$bytes"; exit 0; fi;
    sum=$(sha256sum < "$part");
    [ "${{sum%% *}}" = "$5" ] || {{ discard; problem altered; }};
    reason=$({{ chmod 700 "$part" && mv -f "$part" "$own/runner"; }} 2>&1) || [ -f "$own/runner" ] || problem "$reason";
fi;
[ -f "$own/runner" ] || problem altered;
cd "$folder" && ls -1t | grep -x -E "[0-9a-f]{{32}}" | tail -n +{KEPT_PROGRAMS + 1} |
    while read -r old; do rm -rf "./$old"; done;
echo "done=yes"
""",
)

# Arguments: place, folder of the program, bytes that come on stdin, "NAME:BYTES …" of the files that come before input.npy there,
# seconds of processor time that it may take, names of the files to bring back, and the program's own. Prints "problem=REASON"; or
# "status=N" and then the files, one after the other, or what the program wrote on stderr. The end of stdin means that nobody
# waits any more: the program is stopped. The limit is for a network that fell silent, where that end never comes.
# busybox' head reads more of a pipe than it gives, so all files come as one, which is then taken apart.
RUN = _one_line(
    _START,
    """
place "$1"; own=$2; program=$folder/$own/runner; bytes=$3; files=$4; seconds=$5; results=$6; shift 6;
[ -f "$program" ] || problem missing;
touch "$folder/$own";
work=$(mktemp -d "$temporary/bnn-deploy.XXXXXX" 2>/dev/null) || work=$(mktemp -d "$folder/work.XXXXXX" 2>&1) || problem "$work";
runner=""; watcher="";
clean() { [ -z "$runner" ] || kill $runner $watcher 2>/dev/null; cd /; rm -rf "$work"; };
trap clean EXIT; trap "exit 129" HUP INT TERM PIPE;
cd "$work" || exit 1;
reason=$({ head -c "$bytes" > input.npy; } 2>&1) || problem "$reason";
received=$(wc -c < input.npy);
[ "$received" -eq "$bytes" ] || problem "No space left on device: $received of $bytes bytes of the input were stored";
for file in $files; do
    reason=$({
        mv input.npy rest && head -c "${file#*:}" rest > "${file%:*}" && tail -c +$((${file#*:} + 1)) rest > input.npy && rm rest;
    } 2>&1) || problem "$reason";
done;
exec 3<&0;
(ulimit -t "$seconds"; exec "$program" "$@") < /dev/null > printed 2> errors 3<&- & runner=$!;
(read -r nothing; kill $runner) <&3 3<&- > /dev/null 2>&1 & watcher=$!;
wait $runner; status=$?;
kill $watcher 2>/dev/null; runner="";
echo "status=$status";
if [ $status -eq 0 ]; then cat $results; else head -c 4000 errors; fi
""",
)
