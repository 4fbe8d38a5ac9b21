"""The application over the library: what the commands need and the library does not know.

The library computes: layers, backends, the training step, data, and the file formats of weights and
plots.  It knows no flag, no folder of a run and no console.  The application never computes.  In it,

- `settings` declares each setting of a run once, from which its flag, its default, its check and its
  place in config.json follow;
- `flags` adds the settings' flags to a command, and reads a recipe's;
- `command_line` reads arguments and turns errors into one line and an exit status;
- `console` prints, and lets no text that a stranger wrote drive the terminal;
- `experiment` makes model, batches and trainer out of the settings and holds the state of a run;
- `training` is the one epoch loop;
- `run_folder` knows the files of a run, and writes and reads them;
- `provenance` tells what computed a run: versions, commit, processor, time;
- `prediction` gives the logits of images, as the test, `evaluate` and `predict` need them;
- `report` and `progress` show what came of a run, and how far it is;
- `pages` has the HTML pages, `filter_history` the filters that a run keeps for them, and `events` what
  TensorBoard reads;
- `commands` has the body of each command, and `main` the command ``minicnn``, which calls them.

A flag of training takes four stops: its declaration in `settings`, the `Config` that the command makes of
the command line, `experiment` or `training`, which reads it there, and the library's argument that it
becomes.
"""
