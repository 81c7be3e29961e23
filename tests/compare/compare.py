"""The others' side of `run`: the same inputs, medians, and one Markdown table with ratios."""

import json
import statistics
import sys
import time

import numpy as np
from hmmlearn.hmm import CategoricalHMM
from pyts.approximation import PiecewiseAggregateApproximation, SymbolicAggregateApproximation as PytsSax
from scipy.stats import mannwhitneyu
from tslearn.piecewise import SymbolicAggregateApproximation as TslearnSax


def median_ns(rounds, calls, call):
    """Median over `rounds` of the nanoseconds that one of `calls` calls takes, after one to warm up."""
    call()
    times = []
    for _ in range(rounds):
        started = time.perf_counter_ns()
        for _ in range(calls):
            call()
        times.append((time.perf_counter_ns() - started) / calls)
    return statistics.median(times)


def hmm(ours):
    model = CategoricalHMM(n_components=len(ours["initial"]), n_features=len(ours["emission"][0]))
    model.startprob_ = np.array(ours["initial"])
    model.transmat_ = np.array(ours["transition"])
    model.emissionprob_ = np.array(ours["emission"])
    observations = np.array(ours["observations"]).reshape(-1, 1)
    score = model.score(observations)
    assert abs(score - ours["log_likelihood"]) < 1e-9 * abs(score), (score, ours["log_likelihood"])
    return median_ns(51, 20, lambda: model.score(observations))


def sax(ours):
    points, segment, letters = ours["points"], ours["segment"], ours["letters"]
    series = (np.arange(points) % 97 / 24.0 - 2.01).reshape(1, -1)
    pyts = PytsSax(n_bins=letters, strategy="normal", alphabet="ordinal")
    assert pyts.transform(series)[0][:97].tolist() == ours["first"], "pyts has the same letters"
    paa = PiecewiseAggregateApproximation(window_size=segment)
    one = lambda segments: TslearnSax(n_segments=segments, alphabet_size_avg=letters, scale=False).fit(cube)
    cube = series.reshape(1, -1, 1)
    whole, cut = one(points), one(points // segment)
    return {
        "pyts": median_ns(9, 1, lambda: pyts.transform(series)),
        "tslearn": median_ns(5, 1, lambda: whole.transform(cube)),
        "pyts, PAA": median_ns(9, 1, lambda: pyts.transform(paa.transform(series))),
        "tslearn, PAA": median_ns(5, 1, lambda: cut.transform(cube)),
    }


def mann_whitney(ours):
    """Each metric, each minute: what was seen so far against the last reference window."""
    start, end = max(ours["baseline"], key=lambda window: window[1])
    begin, stop = ours["verification"]
    past, live = {}, {}
    for series in ours["series"]:
        key = (series["metric"], series["host"])
        for minute, value in enumerate(series["values"], series["start"]):
            if value is not None:
                if start <= minute < end:
                    past.setdefault(key, []).append(value)
                elif begin <= minute < stop:
                    live.setdefault(key, []).append(value)
    pairs = [(np.array(past[key]), np.array(live[key])) for key in sorted(live)]

    def judge():
        for reference, seen in pairs:
            for minute in range(1, len(seen) + 1):
                mannwhitneyu(seen[:minute], reference, alternative="two-sided")

    return len(pairs), stop - begin, median_ns(5, 1, judge)


def shown(ns):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.3g} ns"


def ratio(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        ours = json.load(file)
    print("| what | Vouch | the other | median | times Vouch |\n|---|---|---|---|---|")

    def row(what, mine, name, theirs):
        print(f"| {what} | {shown(mine)} | {name} | {shown(theirs)} | {ratio(theirs / mine)} |")

    row("forward pass, 6 states, 8 letters, 120 observations", ours["hmm"]["ns"], "hmmlearn `CategoricalHMM.score`", hmm(ours["hmm"]))
    theirs = sax(ours["sax"])
    row("SAX of 1,000,000 points", ours["sax"]["ns"], "pyts", theirs["pyts"])
    row("SAX of 1,000,000 points", ours["sax"]["ns"], "tslearn", theirs["tslearn"])
    row("the same with PAA of 8", ours["sax"]["ns_with_paa"], "pyts", theirs["pyts, PAA"])
    row("the same with PAA of 8", ours["sax"]["ns_with_paa"], "tslearn", theirs["tslearn, PAA"])
    metrics, minutes, theirs = mann_whitney(ours["case"])
    row(f"a whole case: {metrics} series, {minutes} minutes, asked every minute", ours["case"]["ns"], "SciPy `mannwhitneyu`", theirs)


main()
