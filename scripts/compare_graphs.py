r"""Scores measured prerequisite graphs against the domain's own.

  python scripts/compare_graphs.py --config=configs/quickstart.py \
    --workdir=runs/graphs --seeds=0,1,2,3,4 \
    --config.identifier.panel.learners=16

For each seed a learner panel is drawn and taught (RUN/SEED/panel.npz), and
three graphs are estimated from its answers: interventional, Eq. 3's
conditional, and correlation with the easier module first. The score, fixed
before any was computed: both graphs are closed under "must come before", and F1
is taken over the ordered pairs of modules that the student does not know at the
start and the teacher does. Pairs of known modules are left out: a learner that
knows a module cannot be one that was not taught it.

Prints one JSON object a line, the last the means with 95 % bootstrap intervals
over seeds.
"""

from collections.abc import Sequence
import itertools
import json
import pathlib

from absl import flags

from ioa_jax.runtime import commandline

_WORKDIR = flags.DEFINE_string('workdir', None, 'Made if absent.')
_SEEDS = flags.DEFINE_list(
  'seeds', ['0', '1', '2', '3', '4'], 'One panel each.'
)
_TAU_CORRELATION = flags.DEFINE_float(
  'tau_correlation', 0.5, 'Correlation above which the baseline has an edge.'
)
commandline.DEFINE_config()
flags.mark_flags_as_required(['workdir'])


def main(argv: Sequence[str]) -> None:
  del argv
  import numpy as np

  from ioa_jax import pipeline
  from ioa_jax.evaluation import intervals
  from ioa_jax.identifier import dependency, learner_panel
  from ioa_jax.identifier import responses as responses_lib
  from ioa_jax.runtime import display as display_lib

  config = commandline.config()
  if not config.identifier.panel.learners:
    raise ValueError(
      'config.identifier.panel.learners is 0, so there is no panel to score; '
      'add --config.identifier.panel.learners=16.'
    )
  scores: dict[str, list[float]] = {}
  for seed in commandline.seeds(_SEEDS.value):
    config.seed = seed
    workdir = pathlib.Path(_WORKDIR.value) / str(seed)
    with display_lib.Display() as display:
      diagnosis = pipeline.identify(config, workdir, display)
    responses = responses_lib.load(workdir / learner_panel.PANEL_FILE)
    modules = diagnosis.modules
    open_ = [
      k for k, m in modules.items() if m.status in ('target', 'deficient')
    ]
    candidates = list(itertools.permutations(open_, 2))
    found = {
      name: [(e.source, e.target) for e in graph.edges]
      for name, graph in diagnosis.dependency.graphs.items()
    }
    given = found.pop('given')
    c = config.identifier
    baseline = dependency.edges(
      dependency.correlation(responses.scores(c.panel.response)),
      responses.names,
      tau=_TAU_CORRELATION.value,
    )
    found['correlation'] = list(dependency.break_cycles(baseline)[0])
    line = {'seed': seed}
    for name in ('interventional', 'conditional', 'correlation'):
      scores.setdefault(name, [])
      # A graph that could not be estimated is not one without edges.
      line[name] = None
      if name in found:
        line[name] = dependency.agreement(found[name], given, candidates)
      # Where neither has an edge there is nothing to agree on.
      if line[name] and line[name]['f1'] is not None:
        scores[name].append(line[name]['f1'])
    print(json.dumps(line), flush=True)
  print(
    json.dumps(
      {
        name: {
          'f1': float(np.mean(f1)) if f1 else None,
          'ci95': intervals.bootstrap_mean(f1, seed=0) if f1 else None,
          'seeds': len(f1),
        }
        for name, f1 in scores.items()
      }
    ),
    flush=True,
  )


if __name__ == '__main__':
  commandline.run(main)
