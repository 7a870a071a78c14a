# Copyright (c) 2026, The nemo_speechllm authors.  All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Does speech, as the LLM reads it, run along the words it holds? Scores of a map of cosines (2307.11795).

The map has a row per text token and a column per audio frame. Two scores are taken of it, both about 0 by chance:

``monotonicity``
    Kendall's τ-b between a token's place in the text and the place of the frame that is most like it: 1 where later
    tokens always find later frames. It looks at single best frames, so words that come twice lower it.
``path_gain``
    The mean cosine along the best path that goes through the tokens in order and never back in time, minus the mean of
    the same over random orders of the tokens. It is what the order of the words adds, in units of cosine; the longer
    the text, the less a random order can fit.
"""

from dataclasses import dataclass

import numpy as np
import scipy.stats

SHUFFLES = 200


@dataclass(frozen=True, slots=True)
class AlignmentScore:
    """Scores of one utterance.

    Attributes:
        monotonicity: −1 to 1; 0 where all tokens prefer the same frame.
        path_cosine: mean cosine along the best monotonic path.
        path_gain: ``path_cosine`` minus its mean over random orders of the tokens.
        path_p: share of random orders, the true one among them, whose path is at least as good.
        path: the frame of each token on the best path, (N,).
    """

    monotonicity: float
    path_cosine: float
    path_gain: float
    path_p: float
    path: list[int]


def cosine_map(text: np.ndarray, audio: np.ndarray) -> np.ndarray:
    """Return cosines of every text embedding with every audio embedding: (N, d), (T, d) → (N, T)."""
    text, audio = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (text, audio))
    return text @ audio.T


def alignment_score(cosines: np.ndarray, seed: int = 0, shuffles: int = SHUFFLES) -> AlignmentScore:
    """Return how well the order of a map's tokens agrees with that of its frames.

    Args:
        cosines: map of an utterance, (N, T).
        seed: of the random orders.
        shuffles: how many random orders the path is compared with.

    Raises:
        ValueError: fewer than two tokens or frames: there is no order to speak of.
    """
    if min(cosines.shape) < 2:
        raise ValueError(f"a map of {cosines.shape[0]} tokens and {cosines.shape[1]} frames has no order to score")
    path, score = best_path(cosines)
    random = np.random.default_rng(seed)
    orders = np.argsort(random.random((shuffles, len(cosines))), axis=1)
    by_chance = _path_scores(cosines[orders])[:, -1].max(1) / len(cosines)
    # a sum of the same cosines in another order may differ in its last digits
    as_good = (by_chance >= score - 1e-9).sum()
    return AlignmentScore(
        monotonicity(cosines), score, score - float(by_chance.mean()), float((as_good + 1) / (shuffles + 1)), path
    )


def monotonicity(cosines: np.ndarray) -> float:
    """Return Kendall's τ-b of token places and those of their most similar frames; 0 where these are all the same."""
    tau = scipy.stats.kendalltau(np.arange(len(cosines)), cosines.argmax(1)).statistic
    return 0.0 if np.isnan(tau) else float(tau)


def best_path(cosines: np.ndarray) -> tuple[list[int], float]:
    """Return the frames that give the tokens of a map (N, T) the highest mean cosine, and that mean.

    They never go back. Several tokens may share a frame: a frame may last longer than a token.
    """
    scores = _path_scores(cosines[None])[0]
    frame, path = cosines.shape[1], []
    for row in reversed(scores):
        frame = int(row[: frame + 1].argmax())
        path.append(frame)
    return path[::-1], float(scores[-1].max() / len(cosines))


def _path_scores(maps: np.ndarray) -> np.ndarray:
    """Return, of maps (K, N, T), at [k, n, t] the highest sum over tokens 0…n of map k, token n at frame t."""
    scores = np.array(maps, dtype=float)
    for token in range(1, maps.shape[1]):
        scores[:, token] += np.maximum.accumulate(scores[:, token - 1], axis=1)
    return scores
