"""Stands in for gcloud: notes its arguments, and plays a TPU of two hosts in a folder.

python fake_gcloud.py FOLDER ARGUMENTS

A host is a home folder in which --command is run by bash. The TPU's state is a file, which the
training that is played may change, as Google does when it takes a TPU away.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import psutil

HOSTS = ('host0', 'host1')


def describe(folder, _):
    state = folder / 'state'
    if not state.exists():
        sys.exit("ERROR: (gcloud.compute.tpus.tpu-vm.describe) NOT_FOUND: 'nodes/it' was not found")
    print(state.read_text())


def create(folder, _):
    (folder / 'state').write_text('READY')
    for host in HOSTS:
        tools = folder / host / '.local' / 'bin'
        tools.mkdir(parents=True)
        (tools / 'uv').symlink_to(folder / 'bin' / 'uv')


def delete(folder, _):
    homes = [str(folder / host) for host in HOSTS]
    for process in psutil.process_iter(['environ']):
        if (process.info['environ'] or {}).get('HOME') in homes:
            process.kill()
    (folder / 'state').unlink()
    for host in HOSTS:
        shutil.rmtree(folder / host)


def scp(folder, arguments):
    for host in HOSTS:
        shutil.copy(arguments[0], folder / host)


def ssh(folder, arguments):
    if (folder / 'state').read_text() != 'READY':
        sys.exit('ERROR: (gcloud.compute.tpus.tpu-vm.ssh) Could not SSH into the instance')
    options = dict(argument[2:].split('=', 1) for argument in arguments[1:] if '=' in argument)
    hosts = HOSTS if options['worker'] == 'all' else [f'host{options["worker"]}']
    for number, host in enumerate(hosts):
        print(f'SSH: Attempting to connect to worker {number}...', file=sys.stderr, flush=True)
        home = folder / host
        subprocess.run(
            ['bash', '-c', options['command']],
            cwd=home,
            env={**os.environ, 'HOME': str(home), 'PLAY': str(folder)},
            check=True,
        )


def main():
    folder, *arguments = sys.argv[1:]
    folder = pathlib.Path(folder)
    with (folder / 'calls').open('a') as calls:
        calls.write(json.dumps(arguments) + '\n')
    verbs = {verb.__name__: verb for verb in (describe, create, delete, scp, ssh)}
    assert arguments[:3] == ['compute', 'tpus', 'tpu-vm']
    verbs[arguments[3]](folder, arguments[4:])


if __name__ == '__main__':
    main()
