"""The units under a real systemd: a container boots from the root file system of this machine (what it writes stays in memory and is
gone with it), with no network but loopback, and is installed by the commands of deploy/README.md. It takes root and `systemd-nspawn`."""

import os
import re
import shutil
import subprocess

# Seconds for all of it; it takes about thirty.
SECONDS_MAX = 240

TARGET = "[Unit]\nDescription=Check of the units\nRequires=mainstem-check.service\n"
SERVICE = """[Unit]
Description=Steps of the check
SuccessAction=poweroff
FailureAction=poweroff
[Service]
Type=oneshot
WorkingDirectory=/check
ExecStart=/bin/bash -euo pipefail /check/steps
StandardOutput=file:/check/log
StandardError=inherit
"""

# Runs in the container. A job goes on while its coordinator and its worker are killed and restarted, each row comes out once; a unit whose
# process dies over and over is started each time; stopping is quick and clean; the sandbox leaves writing to what the unit names.
STEPS = r"""
echo >/check/began
trap 'journalctl --no-pager --unit mainstem-coordinator --unit mainstem-worker >/check/journal' EXIT
wait_for() { for _ in $(seq 300); do "$@" && return; sleep 0.2; done; echo "not within 60 s: $*"; exit 1; }
has() { [[ "$(mainstem "${@:2}" --config $config 2>&1)" =~ $1 ]]; }
warned() { [[ "$(journalctl --quiet --output cat --priority warning..warning --unit mainstem-worker)" =~ WARN.*coordinator ]]; }
is() { [[ "$(systemctl show --value --property "$2" "mainstem-$3")" =~ ^($1)$ ]]; }
must() { "$@" || { echo "is not so: $*"; exit 1; }; }
config=/etc/mainstem/mainstem.toml

cd /check/release/*/
@INSTALL@
sed -i -e 's|^members = .*|members = ["1=localhost:7071"]|' -e 's|^state-dir = .*|state-dir = "/srv/check/state"|' $config
sed -i 's|^MAINSTEM_ADVERTISE=.*|MAINSTEM_ADVERTISE=localhost:7072|' /etc/mainstem/worker.env
echo 'check viewer 0123456789abcdef0123456789abcdef' >/etc/mainstem/tokens
install -d -o mainstem -g mainstem -m 750 /srv/check /srv/check/state
for kind in coordinator worker; do
  mkdir /etc/systemd/system/mainstem-$kind.service.d
  printf '[Service]\nReadWritePaths=/srv/check\n' >/etc/systemd/system/mainstem-$kind.service.d/override.conf
done
systemctl daemon-reload
systemctl start mainstem-coordinator mainstem-worker
wait_for has ready jobs
must has leader members

cp /check/job.sql /srv/check
cd /srv/check
mainstem submit job.sql --parallelism 2 --config $config
wait_for has '[1-9][0-9]* published' status job
systemctl kill --signal KILL --kill-whom main mainstem-coordinator
wait_for is '[1-9]' NRestarts coordinator
systemctl restart mainstem-worker
wait_for has 'state +(finished|failed)' status job
must has 'state +finished' status job
cat out/part-* | sort --numeric-sort | cmp - <(seq @ROWS@)
wait_for warned
[ -z "$(find /srv/check /var/lib/mainstem/*/ ! -user mainstem ! -path '*/job.sql')" ]
must test -d /var/lib/mainstem/worker/copies -a -f /var/lib/mainstem/coordinator/consensus.redb

for deaths in 1 2 3 4 5 6 7; do
  wait_for is active ActiveState worker
  systemctl kill --signal KILL --kill-whom main mainstem-worker
  wait_for is "$deaths" NRestarts worker
done
wait_for has ready jobs

began=$SECONDS
systemctl stop mainstem-worker mainstem-coordinator
[ $((SECONDS - began)) -lt 10 ]
for kind in coordinator worker; do must is success Result $kind; must is 0 ExecMainStatus $kind; done
echo >/check/passed
"""
ROWS = 200_000
JOB = f"""SET 'execution.checkpointing.interval' = '500 ms';
CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '20000',
  'fields.n.kind' = 'sequence', 'fields.n.start' = '1', 'fields.n.end' = '{ROWS}');
CREATE TABLE copies (n BIGINT) WITH ('connector' = 'filesystem', 'path' = '/srv/check/out', 'format' = 'csv');
INSERT INTO copies SELECT n FROM numbers;
"""
# In a mount namespace of its own: the file system of this machine with a layer in memory above, in which the container writes.
LAYERS = r"""
mount -t tmpfs tmpfs "$1"
cd "$1" && shift
mkdir above work root
mount -t overlay overlay -o lowerdir=/,upperdir=above,workdir=work root
exec systemd-nspawn --directory=root "$@"
"""
# They would wait for a network that does not come.
MASKED = ("systemd-networkd-wait-online.service", "NetworkManager-wait-online.service")


def missing():
    """What this machine lacks for it, or None."""
    if os.geteuid() != 0:
        return "it needs root"
    if not shutil.which("systemd-nspawn"):
        return "there is no systemd-nspawn (Debian: systemd-container)"
    if not shutil.which("systemctl"):
        return "this system has no systemd"
    return None


def check(archive, guide, directory):
    """What is wrong, as a list, and why nothing was tried where no container boots here."""
    home, layers = directory / "systemd", directory / "layers"
    for path in (home / "release", layers):
        path.mkdir(parents=True)
    subprocess.run(["tar", "--extract", "--no-same-owner", "--file", archive, "--directory", home / "release"], check=True)
    install = "\n".join(re.findall(r"(?m)^install .*$", guide.partition("## In containers")[0]))
    (home / "steps").write_text(STEPS.replace("@INSTALL@", install).replace("@ROWS@", str(ROWS)))
    (home / "job.sql").write_text(JOB)
    units = {"mainstem-check.target": TARGET, "mainstem-check.service": SERVICE}
    command = ["unshare", "--mount", "--propagation=private", "sh", "-euc", LAYERS, "sh", layers, "--quiet", "--boot", "--private-network",
               "--machine=mainstem-check", "--register=no", "--keep-unit", "--link-journal=no", f"--bind={home}:/check"]
    for name, text in units.items():
        (home / name).write_text(text)
        command.append(f"--bind-ro={home / name}:/etc/systemd/system/{name}")
    command += ["systemd.unit=mainstem-check.target", *(f"systemd.mask={unit}" for unit in MASKED)]
    late = False
    with open(home / "console", "wb") as console:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=console, stderr=console)
        try:
            status = process.wait(SECONDS_MAX)
        except subprocess.TimeoutExpired:
            # nspawn ends what is in the container with it.
            process.terminate()
            status, late = process.wait(), True
    if (home / "passed").exists():
        return [], None
    tails = [(name, (home / name).read_text(errors="replace")[-3000:]) for name in ("console", "log", "journal") if (home / name).exists()]
    if status != 0 and not late and not (home / "began").exists():
        return [], f"systemd-nspawn boots no container here: {tails[0][1].strip()[-300:]}"
    return [f"units under systemd{f', not within {SECONDS_MAX} s' if late else ''}:\n" + "\n".join(f"--- {name}\n{text}" for name, text in tails)], None
