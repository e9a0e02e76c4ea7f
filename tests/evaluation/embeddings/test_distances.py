import numpy as np
import pytest
import scipy.linalg

from m2l_jax.evaluation.embeddings import distances
from m2l_jax.evaluation.embeddings.distances import frechet_distance, measure_distances


def draw_clips(seed, clips=20, frames=3, width=6, shift=0.0):
    random = np.random.default_rng(seed)
    return list(random.standard_normal((clips, frames, width)).astype(np.float32) + shift)


def whitened(random, rows, width):
    """Rows whose mean is 0 and whose covariance is the identity."""
    basis, _ = np.linalg.qr(np.c_[np.ones(rows), random.standard_normal((rows, width))])
    return basis[:, 1:] * np.sqrt(rows - 1)


def obvious_kernel_distance(reference, estimate):
    every = np.concatenate(reference).astype(np.float64)
    between = [np.linalg.norm(every[i] - every[j]) for i in range(len(every)) for j in range(i)]
    width = np.median(between)

    def kernel(one, other):
        return np.exp(-np.sum((one.astype(np.float64) - other) ** 2) / (2 * width**2))

    total = count = 0
    for one, (x, y) in enumerate(zip(reference, estimate, strict=True)):
        for other, (u, v) in enumerate(zip(reference, estimate, strict=True)):
            if one == other:
                continue
            for i in range(len(x)):
                for j in range(len(u)):
                    total += kernel(x[i], u[j]) + kernel(y[i], v[j])
                    total -= kernel(x[i], v[j]) + kernel(y[i], u[j])
                    count += 1
    return 100 * total / count


@pytest.mark.parametrize('width', [5, 200])
def test_frechet_distance_of_a_set_with_itself_is_zero(width):
    rows = 10 * np.random.default_rng(0).standard_normal((60, width)) + 3
    assert frechet_distance(rows, rows) < 1e-6
    assert frechet_distance(rows, rows[::-1]) < 1e-6


def test_frechet_distance_of_diagonal_gaussians_is_the_closed_form():
    random = np.random.default_rng(0)
    one, other = random.uniform(0.1, 3, (2, 8))
    means = random.standard_normal((2, 8))
    distance = frechet_distance(
        whitened(random, 50, 8) * one + means[0], whitened(random, 70, 8) * other + means[1]
    )
    wanted = np.sum((means[0] - means[1]) ** 2) + np.sum((one - other) ** 2)
    assert distance == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize('seed', range(50))
def test_frechet_distance_is_that_of_matrix_square_roots(seed):
    random = np.random.default_rng(seed)
    one = random.standard_normal((90, 12)) @ random.standard_normal((12, 12))
    other = random.standard_normal((50, 12)) @ random.standard_normal((12, 12)) + 0.3
    first, second = np.cov(one.T), np.cov(other.T)
    root = scipy.linalg.sqrtm(first @ second).real
    shift = np.mean(one, axis=0) - np.mean(other, axis=0)
    wanted = shift @ shift + np.trace(first + second - 2 * root)
    assert frechet_distance(one, other) == pytest.approx(wanted, rel=1e-4)


def test_frechet_distance_of_fewer_rows_than_numbers_agrees_with_that_of_zeros_appended():
    random = np.random.default_rng(0)
    one, other = random.standard_normal((2, 30, 20))
    wide = np.zeros((30, 40))
    padded = [np.c_[each, wide] for each in (one, other)]
    assert frechet_distance(*padded) == pytest.approx(frechet_distance(one, other), rel=1e-9)


def test_frechet_distance_of_one_row_is_nan():
    assert np.isnan(frechet_distance(np.ones((1, 3)), np.ones((5, 3))))


def test_distances_of_a_perfect_reconstruction_are_zero():
    clips = draw_clips(0)
    measured = measure_distances(clips, clips)
    for name in ('fad', 'fad_inf', 'kad'):
        assert abs(measured[name]) < 1e-6
    assert (measured['embeddings'], measured['width']) == (60, 6)


def test_kernel_distance_is_that_of_an_obvious_loop():
    reference, estimate = draw_clips(0, clips=5), draw_clips(1, clips=5, shift=0.4)
    reference[1], estimate[1] = reference[1][:2], estimate[1][:2]
    wanted = obvious_kernel_distance(reference, estimate)
    assert measure_distances(reference, estimate)['kad'] == pytest.approx(wanted, rel=1e-6)


def test_kernel_distance_of_equal_distributions_is_zero_on_average():
    drawn = [
        measure_distances(draw_clips(2 * seed, 7), draw_clips(2 * seed + 1, 7))['kad']
        for seed in range(400)
    ]
    error = np.std(drawn) / np.sqrt(len(drawn))
    assert abs(np.mean(drawn)) < 3 * error
    assert error < 0.2


def test_kernel_distance_of_clips_whose_frames_are_alike_is_unbiased_too():
    def repeat(seed):
        return [np.repeat(clip[:1], 3, axis=0) for clip in draw_clips(seed, 7)]

    drawn = [measure_distances(repeat(2 * n), repeat(2 * n + 1))['kad'] for n in range(400)]
    assert abs(np.mean(drawn)) < 3 * np.std(drawn) / np.sqrt(len(drawn))


def test_kernel_distance_thins_many_frames(monkeypatch):
    reference, estimate = draw_clips(0, 10, 100), draw_clips(1, 10, 100, shift=0.5)
    whole = measure_distances(reference, estimate)['kad']
    monkeypatch.setattr(distances, '_KERNEL_FRAMES', 300)
    thinned = measure_distances(reference, estimate)['kad']
    assert thinned != whole
    assert thinned == pytest.approx(whole, rel=0.3)


def test_distances_grow_with_the_difference():
    reference = draw_clips(0)
    noise = draw_clips(1)
    measured = [
        measure_distances(reference, [x + gain * e for x, e in zip(reference, noise, strict=True)])
        for gain in (0.1, 0.5, 2)
    ]
    for name in ('fad', 'fad_inf', 'kad'):
        values = [each[name] for each in measured]
        assert values == sorted(values), name
        assert values[-1] > 1


def test_extrapolation_is_closer_to_the_truth_than_the_distance_of_few_clips():
    random = np.random.default_rng(0)
    spread = np.exp(-np.arange(40) / 10)
    truth = np.sum((spread - np.sqrt(1 + 0.5**2) * spread) ** 2)
    plain, extrapolated = [], []
    for _ in range(5):
        clips, noise = random.standard_normal((2, 30, 4, 40)) * spread
        measured = measure_distances(list(clips), list(clips + 0.5 * noise))
        plain.append(measured['fad'])
        extrapolated.append(measured['fad_inf'])
    assert np.mean(plain) > 2 * truth
    assert np.mean(extrapolated) == pytest.approx(truth, rel=0.4)


def test_intervals_contain_the_truth_about_as_often_as_they_say():
    random = np.random.default_rng(0)
    shift, hits = 0.5, 0
    for _ in range(100):
        clips, noise = random.standard_normal((2, 40, 2, 3))
        low, high = measure_distances(list(clips), list(clips + noise * 0.5 + shift))['interval'][
            'fad'
        ]
        hits += low < 3 * shift**2 + 3 * (np.sqrt(1.25) - 1) ** 2 < high
    assert 85 <= hits <= 100


def test_too_few_clips_give_nan():
    measured = measure_distances(draw_clips(0, 1, 4), draw_clips(1, 1, 4))
    assert np.isfinite(measured['fad'])
    assert np.isnan([measured['fad_inf'], measured['kad'], *measured['interval']['fad']]).all()
    one_frame = measure_distances(draw_clips(0, 1, 1), draw_clips(1, 1, 1))
    assert np.isnan([one_frame['fad'], one_frame['kad']]).all()


def test_embeddings_that_are_all_the_same_have_no_kernel_distance():
    clips = [np.ones((2, 3), np.float32)] * 9
    assert np.isnan(measure_distances(clips, draw_clips(0, 9, 2, 3))['kad'])


def test_embeddings_of_other_clips_are_refused():
    with pytest.raises(ValueError, match='not embeddings of the same clips'):
        measure_distances(draw_clips(0, 3), draw_clips(1, 4))
