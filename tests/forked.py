"""Runs Python programs in processes forked from one that has imported TensorFlow.

An import of TensorFlow takes four seconds of CPU time, and the tests start some hundred
processes. `run` and `Popen` take the place of those of `subprocess` for commands such
as `[sys.executable, "-c", code, argument]`; scripts and `-m` work, too. The program has
a process of its own, in which nothing of TensorFlow has started: a fork server of
`multiprocessing` imports it and does nothing else.
"""

import io
import multiprocessing
import multiprocessing.forkserver
import os
import pathlib
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
import weakref

PRELOADED = ["numpy", "keras", "tensorflow"]


class Popen:
    """A program in a forked process; the parts of `subprocess.Popen` that tests use.

    Args:
        command: `sys.executable`, then the options `-P` and `-W`, then `-c` with code,
            `-m` with a module or the path of a script, then arguments.
        cwd: The working directory.
        env: All of the environment; the test's own by default.
        stdout: `subprocess.PIPE` to give the output to `communicate`, otherwise it is
            that of the test.
        stderr: Likewise; or `subprocess.STDOUT`.
        text: Ignored: the output is always text.
    """

    def __init__(
        self, command, *, cwd=None, env=None, stdout=None, stderr=None, text=True
    ):
        assert command[0] == sys.executable
        output_folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, output_folder, ignore_errors=True)
        wanted = {"stdout": stdout, "stderr": stderr}
        paths = {
            name: os.path.join(output_folder, name)
            for name, value in wanted.items()
            if value is not None
        }
        if stderr == subprocess.STDOUT:
            paths["stderr"] = paths["stdout"]
        for path in paths.values():  # which are read even if the process never starts
            pathlib.Path(path).touch()
        self._paths = paths
        environment = dict(os.environ if env is None else env)
        arguments = [str(argument) for argument in command[1:]]
        folder = str(cwd or os.getcwd())
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self._process = context.Process(
            target=_run, args=(arguments, folder, environment, paths)
        )
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self._process.exitcode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a forked program", timeout)
        return self._process.exitcode

    def communicate(self, timeout=None):
        self.wait(timeout)
        return self._output("stdout"), self._output("stderr")

    @property
    def stderr(self):
        """What the program has written to stderr until now, as a file."""
        return io.StringIO(self._output("stderr"))

    def send_signal(self, number):
        if self._process.is_alive():
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def _output(self, name):
        if name not in self._paths:
            return None
        return pathlib.Path(self._paths[name]).read_text(errors="replace")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self.wait()


def run(command, *, capture_output=False, timeout=None, **options):
    """Runs a program to its end, as `subprocess.run` does."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(command, **options) as process:
        output, errors = process.communicate(timeout)
        return subprocess.CompletedProcess(command, process.returncode, output, errors)


def stop():
    """Ends the fork server, and waits for it, so that its CPU time is accounted."""
    # Private: it has no public end. tests/test_forked.py notices when it changes.
    multiprocessing.forkserver._forkserver._stop()


def _run(arguments, folder, environment, paths):
    """Becomes the program, in the forked process."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if name in paths:
            os.dup2(
                os.open(paths[name], os.O_CREAT | os.O_APPEND | os.O_WRONLY), number
            )
    os.chdir(folder)
    sys.orig_argv = [sys.executable, *arguments]
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    multiprocessing.process.current_process()._inheriting = False
    warnings.resetwarnings()
    safe_path = False
    while arguments[0] in ("-P", "-W"):
        option = arguments.pop(0)
        if option == "-W":
            warnings._processoptions([arguments.pop(0)])
        safe_path |= option == "-P"
    sys.path[:] = [path for path in sys.path if path]
    added = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [path for path in added if path]
    try:
        _start(arguments, safe_path)
    except SystemExit as error:
        code = error.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
        status = 0 if code is None else code if isinstance(code, int) else 1
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())
        _flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    else:
        status = 0
    _flush()
    sys.exit(status)


def _start(arguments, safe_path):
    first = arguments[0]
    if first in ("-c", "-m"):
        if not safe_path:
            sys.path.insert(0, os.getcwd())
        sys.argv = [first, *arguments[2:]]
        if first == "-m":
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            main = type(sys)("__main__")
            sys.modules["__main__"] = main
            exec(compile(arguments[1], "<string>", "exec"), main.__dict__)
        return
    if not safe_path:
        sys.path.insert(0, os.path.dirname(os.path.abspath(first)))
    sys.argv = arguments
    runpy.run_path(first, run_name="__main__")


def _flush():
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
