"""The trees and disks that machines start from: built of Debian's packages, kept by content.

Everything lies below `machines` in the lab's cache: a tree for each host network manager, disks
made of them, and machines that are booted already. The name of each has a digest of what went in:
recipe, versions of packages, files. What is out of date is removed when its successor is built.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import inspect
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kvmnet.adapters.run import environment, run
from kvmnet.errors import CommandFailed, Unavailable
from kvmnet.lab import kernel, packages
from kvmnet.lab.cache import cache_dir, locked

BASE = (
    "systemd", "systemd-sysv", "dbus", "udev", "kmod", "iproute2", "iputils-ping", "nftables",
    "procps", "python3", "iw",
)  # fmt: skip
MANAGERS: dict[str, tuple[str, ...]] = {
    "netplan": ("netplan.io", "systemd-resolved"),
    "networkmanager": ("network-manager",),
    "networkd": ("systemd-resolved",),
    "ifupdown": ("ifupdown", "bridge-utils", "isc-dhcp-client", "vlan", "ifenslave"),
    "netplan-nm": ("netplan.io", "network-manager"),
}
"""The host network managers that there are machines with, and their packages."""

SERVICES = {
    "netplan": ("systemd-networkd",),
    "networkmanager": (),
    "networkd": ("systemd-networkd",),
    "ifupdown": ("networking",),
    "netplan-nm": (),
}
"""What has to be enabled beyond what the packages enable themselves."""

HERE = Path(__file__).parent
FILES = HERE / "files"
ROOT = HERE.parents[1]
LIBRARIES = ("lxml", "msgspec", "rich", "ruamel", "pygments", "markdown_it", "mdurl")
"""What kvmnet itself imports, as it lies in the virtual environment."""

Builder = Callable[[Path], object]
"""Makes a file or folder at the path that it is given."""

BUILD_S = 600.0
APT_S = 180.0
"""Without a cache of its own, apt reads all of its lists each time."""
DISK_SIZE = "1500M"
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


NEEDED = {
    "mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container", "mke2fs": "e2fsprogs",
    "qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils", "dnsmasq": "dnsmasq-base",
    "busybox": "busybox-static", "depmod": "kmod", "chrt": "util-linux",
}  # fmt: skip
"""Programs, and the packages that bring them: `machine_packages` in tools/packages.sh."""


def check() -> None:
    """Raise `Unavailable` naming what this machine lacks to make machines."""
    path = environment()["PATH"]
    missing = [name for name in NEEDED if shutil.which(name, path=path) is None]
    if missing:
        names = " ".join(sorted({NEEDED[x] for x in missing}))
        raise Unavailable(
            "machines for tests can not be made here", why=f"missing: {', '.join(missing)}",
            hint=f"apt-get install --no-install-recommends {names}",
        )  # fmt: skip


def tree(manager: str, more: Sequence[str] = ()) -> Path:
    """The root folder of a machine with this manager, and more packages. Raises `Unavailable`.

    Services of those packages are there, and not started.
    """
    with _building() as folder:
        return _tree(folder, manager) if not more else _larger_tree(folder, manager, more)


def disk(manager: str) -> Path:
    """The same as an ext4 file system, with the kernels' modules. Raises `Unavailable`."""
    kernels = (cloud_kernel(), generic_kernel())
    with _building() as folder:
        root = _tree(folder, manager)
        parts = (
            _recipe(_pack),
            str(_USELESS_MODULES),
            root.name,
            DISK_SIZE,
            *(x.version for x in kernels),
        )
        name = f"disk-{manager}"
        return _ensure(folder, name, _digest(parts), lambda to: _pack(root, kernels, to))


def libraries() -> Path:
    """kvmnet's Python libraries in one folder, compiled: only those, and nothing of the tests'."""
    site = _site_packages()
    every = (path.name for path in sorted(site.glob("*.dist-info")))
    names = [name for name in every if name.lower().startswith(LIBRARIES)]
    digest = _digest((_recipe(_copy_libraries), sys.version, *LIBRARIES, *names))
    with _building() as folder:
        return _ensure(folder, "libraries", digest, lambda to: _copy_libraries(site, to))


def stage(target: Path) -> None:
    """A new folder with this checkout's kvmnet and its libraries, for /opt/kvmnet, compiled."""
    shutil.copytree(ROOT / "src/kvmnet", target / "src/kvmnet")
    _command([sys.executable, "-m", "compileall", "-q", str(target / "src")])
    with _building():  # another checkout's libraries may take the place of these
        shutil.copytree(libraries(), target / "lib", symlinks=True)


def generic_kernel() -> kernel.Kernel:
    """Debian's kernel for real machines, with drivers that the one for clouds lacks."""
    with locked() as cache:
        for name in packages.dependencies("linux-image-amd64"):
            if name.startswith("linux-image-"):
                root = packages.ensure(cache, name, _say)
                for image in sorted(root.glob("boot/vmlinuz-*")):
                    version = image.name.split("-", 1)[1]
                    modules = root / "lib/modules" / version
                    return kernel.Kernel(version=version, image=str(image), modules=str(modules))
    raise Unavailable("apt knows no generic kernel", hint="bring its lists up to date")


def cloud_kernel() -> kernel.Kernel:
    """Debian's kernel for virtual machines, the lab's."""
    with locked() as cache:
        return kernel.ensure(cache, _say)


def kept(name: str, parts: Sequence[str], build: Builder) -> Path:
    """What `build` makes of a machine, kept under `name` as long as `parts` stay the same."""
    with _building() as folder:
        return _ensure(folder, name, _digest(parts), build)


def clean() -> None:
    """Remove all that was built here; the lab's own things in the cache stay."""
    shutil.rmtree(cache_dir() / "machines", ignore_errors=True)


def scratch() -> Path:
    """A new folder on disk for this process; those of processes that are gone are removed."""
    with _building() as folder:
        for old in folder.glob("run-*"):
            pid = old.name.split("-")[1]
            if not Path("/proc", pid).exists():
                shutil.rmtree(old, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=f"run-{os.getpid()}-", dir=folder))


_depth = 0


@contextlib.contextmanager
def _building() -> Iterator[Path]:
    """The folder of all this, with no other process building in it; may be nested."""
    global _depth
    folder = cache_dir() / "machines"
    folder.mkdir(exist_ok=True)
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if _depth == 0:
            fcntl.flock(handle, fcntl.LOCK_EX)
        _depth += 1
        yield folder
    finally:
        _depth -= 1
        os.close(handle)


def _ensure(folder: Path, name: str, digest: str, build: Builder) -> Path:
    """The thing of that name and digest, built if it is not there; older ones are removed."""
    path = folder / f"{name}.{digest}"
    if path.exists():
        return path
    for old in (*folder.glob(f"{name}.*"), *folder.glob(f".building-{name}*")):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    _say(f"building {name} (once)")
    temporary = folder / f".building-{name}"
    build(temporary)
    os.rename(temporary, path)
    return path


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _recipe(*functions: Builder | Callable[..., object]) -> str:
    return "".join(map(inspect.getsource, functions))


def _tree(folder: Path, manager: str) -> Path:
    wanted = (*BASE, *MANAGERS[manager])
    base = _digest((_recipe(_bootstrap), str(_LEFT_OUT), *_versions(BASE), *_own_files()))
    parts = (base, _recipe(_install), *_MASKED, *SERVICES[manager], *_versions(wanted))
    digest = _digest(parts)
    return _ensure(
        folder, f"tree-{manager}", digest, lambda to: _install(folder, manager, base, to)
    )


def _larger_tree(folder: Path, manager: str, more: Sequence[str]) -> Path:
    own = _tree(folder, manager)
    digest = _digest((own.name, _recipe(_add), *_versions(more)))
    name = "-".join(("tree", manager, *more))
    return _ensure(folder, name, digest, lambda to: _add(own, more, to))


def _add(tree: Path, more: Sequence[str], target: Path) -> None:
    _command(["cp", "-a", str(tree), str(target)])
    resolver = target / "etc/resolv.conf"
    told = os.readlink(resolver) if resolver.is_symlink() else None
    resolver.unlink(missing_ok=True)
    shutil.copyfile("/etc/resolv.conf", resolver)
    shutil.copyfile("/etc/hosts", target / "etc/hosts")
    in_tree = ["unshare", "-mpi", "--fork", "--kill-child", "chroot", str(target)]
    _command([*in_tree, "apt-get", "-q", "update"])
    _command([*in_tree, "apt-get", "-y", "-q", "--no-install-recommends", "install", *more])
    _command([*in_tree, "systemctl", "disable", *more])
    _command([*in_tree, "apt-get", "clean"])
    shutil.rmtree(target / "var/lib/apt/lists")
    (target / "etc/hosts").write_text("127.0.0.1 localhost\n")
    if told is not None:
        resolver.unlink()
        resolver.symlink_to(told)


def _install(folder: Path, manager: str, base_digest: str, target: Path) -> None:
    """The base's tree with one manager's packages in addition, nothing of them started."""
    base = _ensure(folder, "base", base_digest, _bootstrap)
    _command(["cp", "-a", str(base), str(target)])
    resolver = target / "etc/resolv.conf"
    shutil.copyfile("/etc/resolv.conf", resolver)
    shutil.copyfile("/etc/hosts", target / "etc/hosts")
    in_tree = ["unshare", "-mpi", "--fork", "--kill-child", "chroot", str(target)]
    _command([*in_tree, "apt-get", "-y", "-q", "--no-install-recommends", "install",
              *MANAGERS[manager]])  # fmt: skip
    for service in SERVICES[manager]:
        _command([*in_tree, "systemctl", "enable", service])
    _command([*in_tree, "systemctl", "enable", "machine-agent"])
    _command([*in_tree, "systemctl", "mask", *_MASKED])
    _command([*in_tree, "apt-get", "clean"])
    shutil.rmtree(target / "var/lib/apt/lists")
    (target / "etc/hosts").write_text("127.0.0.1 localhost\n")
    resolver.unlink(missing_ok=True)
    if (target / "lib/systemd/systemd-resolved").exists():
        resolver.symlink_to("../run/systemd/resolve/stub-resolv.conf")


def _bootstrap(target: Path) -> None:
    """The smallest Debian that boots, made by mmdebstrap from the sources of this machine's apt."""
    with tempfile.TemporaryDirectory(prefix="kvmnet-machines-") as name:
        sources, options = Path(name, "sources.list"), Path(name, "apt.conf")
        sources.write_text(_sources())
        options.write_text(_apt_options())
        excluded = [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
        _command(["mmdebstrap", "--quiet", "--variant=minbase", "--skip=cleanup/apt/lists",
                  f"--aptopt={options}", *excluded, f"--include={','.join(BASE)}",
                  "", str(target), str(sources)])  # fmt: skip
    for path, mode in _OWN_FILES.items():
        to = target / path
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(FILES / to.name, to)
        to.chmod(mode)
    pth = target / "usr/local/lib" / f"python3.{sys.version_info.minor}" / "dist-packages"
    pth.mkdir(parents=True, exist_ok=True)
    (pth / "kvmnet.pth").write_text("/opt/kvmnet/src\n/opt/kvmnet/lib\n")
    (target / "opt/kvmnet").mkdir(parents=True, exist_ok=True)
    (target / "etc/machine-id").write_text("")


_MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "e2scrub_reap.service", "fstrim.timer", "getty.target", "console-getty.service",
    "systemd-logind.service",
)  # fmt: skip
"""Nothing that these tests are about, and under TCG every service takes a second."""

_OWN_FILES = {
    "usr/local/bin/kvmnet": 0o755,
    "usr/local/lib/machines/agent.py": 0o644,
    "usr/local/lib/machines/echo.py": 0o644,
    "usr/local/lib/machines/killer.py": 0o644,
    "etc/systemd/system/machine-agent.service": 0o644,
}
"""From `files/`: how kvmnet is called inside, and what the tests need in there."""


def _own_files() -> list[str]:
    return [f"{path} {(FILES / Path(path).name).read_text()}" for path in _OWN_FILES]


def _sources() -> str:
    """This machine's own sources of the distribution, without those of others."""
    form = "deb $(REPO_URI) $(RELEASE) $(COMPONENT)|$(ORIGIN)"
    lines = run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"]).stdout
    found = {x.split("|")[0] for x in lines.splitlines() if x.endswith(("|Debian", "|Ubuntu"))}
    if not found:
        raise Unavailable("apt has no lists of the distribution", hint="apt-get update")
    return "".join(f"{line}\n" for line in sorted(found))


def _apt_options() -> str:
    """How this machine's apt reaches its sources (proxies, dates), and no translations."""
    dump = run(["apt-config", "dump", "Acquire"]).stdout.splitlines()
    kept = [x for x in dump if x.startswith(("Acquire::http", "Acquire::Check-"))]
    return "\n".join([*kept, 'Acquire::Languages "none";', ""])


def _versions(names: Sequence[str]) -> list[str]:
    """The versions that apt would install now."""
    text = run(["apt-cache", "policy", *names], timeout=APT_S).stdout
    return [line.strip() for line in text.splitlines() if not line.startswith(" ")
            or "Candidate:" in line]  # fmt: skip


def _pack(root: Path, kernels: Sequence[kernel.Kernel], target: Path) -> None:
    """The tree as a file system, with the modules of the kernels."""
    whole = target.with_name(target.name + "-tree")
    try:
        _command(["cp", "-a", str(root), str(whole)])
        for found in kernels:
            modules = whole / "lib/modules" / found.version
            modules.parent.mkdir(exist_ok=True)
            _command(["cp", "-a", found.modules, str(modules)])
            for subsystem in _USELESS_MODULES:
                shutil.rmtree(modules / "kernel" / subsystem, ignore_errors=True)
            _command(["depmod", "-b", str(whole), found.version])
        _command(["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(whole), str(target), DISK_SIZE])
    finally:
        shutil.rmtree(whole, ignore_errors=True)


_USELESS_MODULES = (
    "sound", "drivers/gpu", "drivers/media", "drivers/infiniband", "drivers/scsi", "drivers/iio",
    "drivers/usb", "drivers/input", "drivers/hid", "drivers/staging", "drivers/hwmon",
    "drivers/mtd", "drivers/net/ethernet",
)  # fmt: skip
"""No machine of these tests has such devices, and they are most of the generic kernel."""


def _copy_libraries(site: Path, target: Path) -> None:
    target.mkdir()
    for name in LIBRARIES:
        if not (site / name).exists():
            raise Unavailable(f"kvmnet's library {name} is not in {site}", hint="run ./test")
        shutil.copytree(site / name, target / name, symlinks=True)
    _command([sys.executable, "-m", "compileall", "-q", str(target)])


def _site_packages() -> Path:
    return ROOT / f".venv/lib/python3.{sys.version_info.minor}/site-packages"


_BOUND = (
    "setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child",
    "--mount-proc",
)  # fmt: skip
"""A part of the recipe ends with who runs it, and so does all that it has mounted: else the next
would find half a tree, and file systems of this machine in it."""


def _command(words: Sequence[str]) -> None:
    """Run a part of the recipe; what it said is in the error. Raises `Unavailable`."""
    environment = {"DEBIAN_FRONTEND": "noninteractive", "TMPDIR": tempfile.gettempdir()}
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    try:
        run([*_BOUND, *words], timeout=BUILD_S, env={**environment, "PATH": path})
    except CommandFailed as error:
        raise Unavailable(
            f"the machines for tests could not be built: `{words[0]}` failed", why=str(error),
            hint="bring apt's lists up to date: apt-get update",
        ) from None  # fmt: skip


def _say(text: str) -> None:
    print(f"machines: {text} ...", file=sys.stderr, flush=True)
