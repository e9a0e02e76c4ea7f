import math
import pathlib
import re

import yaml

from m2l_jax.compilation.topologies import count_chips as count_slice
from m2l_jax.interface.command import EXIT_INPUT_ERROR

ROOT = pathlib.Path(__file__).parents[2]
FILE = ROOT / 'launch' / 'gke_jobset.yaml'


def count_chips(pod):
    bounds = pod['nodeSelector']['cloud.google.com/gke-tpu-topology']
    return math.prod(int(side) for side in bounds.split('x'))


def test_every_host_of_the_slice_trains_and_a_mistake_is_not_repeated():
    job_set = yaml.safe_load(FILE.read_text())
    assert (job_set['apiVersion'], job_set['kind']) == ('jobset.x-k8s.io/v1alpha2', 'JobSet')
    (replicated,) = job_set['spec']['replicatedJobs']
    job = replicated['template']['spec']
    pod = job['template']['spec']
    (container,) = pod['containers']

    hosts = count_chips(pod) // container['resources']['limits']['google.com/tpu']
    assert job['completions'] == job['parallelism'] == hosts == 2
    assert job['completionMode'] == 'Indexed'

    # Any end of a pod ends the job, and all start again, unless by this exit code.
    assert (job['backoffLimit'], pod['restartPolicy']) == (0, 'Never')
    (rule,) = job['podFailurePolicy']['rules']
    assert rule['action'] == 'FailJob'
    assert rule['onExitCodes'] == {
        'containerName': container['name'],
        'operator': 'In',
        'values': [EXIT_INPUT_ERROR],
    }
    policy = job_set['spec']['failurePolicy']
    assert policy['maxRestarts'] == 100
    (rule,) = policy['rules']
    assert rule['action'] == 'FailJobSet'
    assert rule['onJobFailureReasons'] == ['PodFailurePolicy']


def test_the_command_is_one_of_this_repository_and_the_bucket_is_mounted():
    job = yaml.safe_load(FILE.read_text())['spec']['replicatedJobs'][0]['template']['spec']
    pod = job['template']['spec']
    (container,) = pod['containers']
    assert container['command'] == ['python', '-m', 'm2l_jax.train']
    arguments = dict(argument[2:].split('=', 1) for argument in container['args'])
    config, _, slice_name = arguments['config'].partition(':')
    assert (ROOT / config).exists()
    assert count_slice(slice_name, 'v4') == count_chips(pod)
    (mount,) = container['volumeMounts']
    assert arguments['workdir'].startswith(mount['mountPath'] + '/')
    (volume,) = pod['volumes']
    assert volume['name'] == mount['name']
    assert volume['csi']['driver'] == 'gcsfuse.csi.storage.gke.io'
    assert job['template']['metadata']['annotations'] == {'gke-gcsfuse/volumes': 'true'}


def test_what_is_to_be_filled_in_is_in_capitals():
    text = re.sub('#.*', '', FILE.read_text())
    values = set(re.findall(r'\b[A-Z]{3,}(?:-[A-Z]+)*\b', text))
    assert values == {'SERVICE-ACCOUNT', 'IMAGE', 'FOLDER-OF-MUSIC', 'BUCKET'}
