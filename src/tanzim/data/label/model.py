"""What is likely true, from votes that may be wrong, by how the voters agree.

Dawid and Skene 1979, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm"; for
rules that may abstain, Ratner et al. 2016, "Data Programming": an abstention is one more thing to say.

Legend: N items · J voters · C classes · V things to say (C classes, and maybe to abstain: V = C + 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tanzim.core.errors import DataError

MISSING = -1  # a voter was not asked
Votes = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]
_SMOOTHING = 10.0  # items that each voter is thought to have judged before, of each class
_RIGHT = 0.7  # the share of those that it got right: without it, the classes could change places


@dataclass(frozen=True, slots=True)
class LabelModel:
    """A fitted model of voters that err independently of one another, given the class.

    Args:
        said_JCV: the probability that voter j says v where the class is c.
        shares_C: how common each class is.
        rounds: rounds of EM that it took.

    """

    said_JCV: npt.NDArray[np.float64]
    shares_C: Shares
    rounds: int

    def __call__(self, votes_NJ: Votes) -> Shares:
        """Return the probability of each class given the votes, [N, C]."""
        return posterior(votes_NJ, self.said_JCV, self.shares_C)


def posterior(votes_NJ: Votes, said_JCV: npt.NDArray[np.float64], shares_C: Shares) -> Shares:
    """Return P(class | votes) by Bayes' rule, voters independent given the class, [N, C]."""
    log_NC = np.tile(np.log(shares_C), (len(votes_NJ), 1))
    for votes_N, said_CV in zip(votes_NJ.T, said_JCV, strict=True):
        asked = votes_N != MISSING
        log_NC[asked] += np.log(said_CV).T[votes_N[asked]]
    likely_NC = np.exp(log_NC - log_NC.max(1, keepdims=True))
    return np.asarray(likely_NC / likely_NC.sum(1, keepdims=True))


def majority(votes_NJ: Votes, classes: int) -> Shares:
    """Return the share of votes that each class has, the same for all where nobody voted, [N, C].

    Args:
        votes_NJ: a class, `MISSING`, or ``classes`` for to abstain.
        classes: C.

    """
    counts_NC = np.stack([(votes_NJ == code).sum(1) for code in range(classes)], 1).astype(np.float64)
    silent = counts_NC.sum(1) == 0
    counts_NC[silent] = 1
    return np.asarray(counts_NC / counts_NC.sum(1, keepdims=True))


def fit(
    votes_NJ: Votes,
    classes: int,
    *,
    abstains: bool = False,
    counts: npt.NDArray[np.float64] | None = None,
    shares: Shares | None = None,
    rounds: int = 500,
    tolerance: float = 1e-7,
) -> LabelModel:
    """Fit the model by expectation and maximisation, from the majority's votes on.

    Voters are thought to be right more often than not (a weak prior), which settles what class is which.

    Args:
        votes_NJ: what each voter said of each item: a class, `MISSING`, or ``classes`` for to abstain.
        classes: C.
        abstains: whether voters may abstain, and whether they do depends on the class.
        counts: how often each row of votes stands, [N]; None: once.
        shares: how common each class is, [C]; None estimates it.
        rounds: most rounds.
        tolerance: it ends when no probability of a class changes by more.

    Raises:
        DataError: there are no votes, or one that names no class.

    """
    outcomes = classes + int(abstains)
    if not votes_NJ.size or not (votes_NJ != MISSING).any():
        raise DataError("there are no votes to learn from", where="label model")
    if votes_NJ.min() < MISSING or votes_NJ.max() >= outcomes:
        raise DataError(f"a vote is not one of {outcomes}, from 0 on, nor -1 for none", where="label model")
    weights = np.ones(len(votes_NJ)) if counts is None else counts
    prior_JCV = _prior(votes_NJ, weights, classes, outcomes)
    shares_NC = majority(votes_NJ, classes)
    done = 0
    for done in range(1, rounds + 1):  # noqa: B007 - it is returned
        said_JCV = _said(votes_NJ, shares_NC * weights[:, None], prior_JCV)
        total_C = (shares_NC * weights[:, None]).sum(0) + 1
        shares_C = total_C / total_C.sum() if shares is None else shares
        fresh_NC = posterior(votes_NJ, said_JCV, shares_C)
        change = np.abs(fresh_NC - shares_NC).max()
        shares_NC = fresh_NC
        if change < tolerance:
            break
    return LabelModel(said_JCV, shares_C, done)


def _prior(votes_NJ: Votes, weights: Shares, classes: int, outcomes: int) -> npt.NDArray[np.float64]:
    """Return what voters are thought to have said before, [J, C, V].

    Each class's own label more often than another's; to abstain as often as the voter does on the whole.
    """
    prior_JCV = np.empty((votes_NJ.shape[1], classes, outcomes))
    for voter, votes_N in enumerate(votes_NJ.T):
        said = np.bincount(votes_N[votes_N != MISSING], weights[votes_N != MISSING], outcomes) + 1
        silent = said[classes:].sum() / said.sum()  # 0 where none may abstain
        prior_JCV[voter] = _SMOOTHING * (1 - silent) * (1 - _RIGHT) / max(classes - 1, 1)
        prior_JCV[voter, range(classes), range(classes)] = _SMOOTHING * (1 - silent) * _RIGHT
        prior_JCV[voter, :, classes:] = _SMOOTHING * silent
    return prior_JCV


def _said(votes_NJ: Votes, weighed_NC: Shares, prior_JCV: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return how often each voter says what, of each class, [J, C, V]."""
    said_JCV = prior_JCV.copy()
    for votes_N, said_CV in zip(votes_NJ.T, said_JCV, strict=True):
        for outcome in range(said_CV.shape[1]):
            said_CV[:, outcome] += weighed_NC[votes_N == outcome].sum(0)
    return np.asarray(said_JCV / said_JCV.sum(2, keepdims=True))
