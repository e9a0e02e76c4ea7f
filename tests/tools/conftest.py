from tests.training.conftest import corpus, whole  # noqa: F401
