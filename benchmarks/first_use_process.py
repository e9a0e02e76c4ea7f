"""What `benchmarks.first_use` starts: a model opened and audio encoded twice.

    python -m benchmarks.first_use_process CHECKPOINT AUDIO

Prints JSON: the times, in seconds since 1970, at which start-up, loading, and encoding once and
twice were over.
"""

import json
import sys
import time


def main(checkpoint: str, audio: str) -> None:
    """Encodes twice: what the second time takes is computing alone."""
    import jax

    from m2l_jax import EncoderDecoder, use_compile_cache

    use_compile_cache()
    ends = [time.time()]
    codec = EncoderDecoder(checkpoint)
    jax.block_until_ready(codec.params)
    ends.append(time.time())
    codec.encode(audio)
    ends.append(time.time())
    codec.encode(audio)
    ends.append(time.time())
    print(json.dumps(ends))


if __name__ == '__main__':
    main(*sys.argv[1:])
