"""Checkpoints: a stopped run resumes as if it had never stopped.

In: a run that is being trained. Out: folders below `<directory>/checkpoints`, from
which a new process restores the run. The files, in the order of the data:

- `saver`: when to write (`Checkpoints`); resumes a run from the last checkpoint
- `fingerprint`, `job_facts`: the facts about a job; only the same job resumes it
- `snapshot`, `callback_states`: copy and restore variables and callbacks' states
- `variable_names`: names of variables that are the same in every process
- `checkpoint_files`, `plain_values`: the files, written atomically, with digests

To change what a checkpoint contains, see `snapshot` and `Saver._snapshot`. Names of
arrays and keys of the state must stay readable: tests/compatibility has a run of
tlkit 0.1.
"""
