"""Writes machines as their kernels show them: small /proc and /sys trees for `steelyard probe --root`.

    make_machines.py LIST           the names
    make_machines.py NAME FOLDER    the tree of one machine

Faithfully written from the vendors' documentation and published `lscpu`, `nvidia-smi topo -m` and
`lspci` listings; each machine says its sources. Device ids and names of GPUs are those of NVIDIA's table
(open-gpu-kernel-modules, README.md), of libdrm's amdgpu.ids, and (1b06) of pci.ids. What such a tree must read as stands beside it, written
by hand, in machines/NAME.json. kvm-2cpu is no machine of this file: it was saved with --gather.
"""
import os
import sys

GIB = 1 << 30


class Tree:
    def __init__(self, folder):
        self.folder = folder

    def at(self, path):
        return os.path.join(self.folder, path.lstrip("/"))

    def write(self, path, text):
        os.makedirs(os.path.dirname(self.at(path)), exist_ok=True)
        with open(self.at(path), "w") as file:
            file.write(str(text).rstrip("\n") + "\n")

    def link(self, path, target):
        os.makedirs(os.path.dirname(self.at(path)), exist_ok=True)
        os.symlink(target, self.at(path))


def ranges(numbers):
    numbers, parts = sorted(numbers), []
    for n in numbers:
        if parts and parts[-1][1] == n - 1:
            parts[-1][1] = n
        else:
            parts.append([n, n])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def mask(numbers, width):
    value = sum(1 << n for n in numbers)
    words = (width + 31) // 32
    return ",".join(f"{(value >> 32 * i) & 0xffffffff:08x}" for i in reversed(range(words)))


class Cpus:
    """Numbered as Linux does on x86 servers: first threads of all cores, then their siblings."""

    def __init__(self, sockets, cores, threads=2, l3_cores=0, model="", flags="", caches=None, arm=None,
                 governor=None):
        self.sockets, self.cores, self.threads = sockets, cores, threads  # cores of one socket
        self.total = sockets * cores
        self.count = self.total * threads
        self.l3_cores = l3_cores or cores
        self.model, self.flags, self.arm, self.governor = model, flags, arm, governor
        self.caches = caches or {}

    def of_core(self, core):
        return [core + t * self.total for t in range(self.threads)]

    def of_cores(self, cores):
        return sorted(c for core in cores for c in self.of_core(core))

    def of_socket(self, socket):
        return self.of_cores(range(socket * self.cores, (socket + 1) * self.cores))

    def write(self, tree):
        base = "/sys/devices/system/cpu"
        for name in ("online", "possible", "present"):
            tree.write(f"{base}/{name}", ranges(range(self.count)))
        info = ""
        for cpu in range(self.count):
            core = cpu % self.total
            socket = core // self.cores
            info += self.stanza(cpu, core, socket)
            topology = f"{base}/cpu{cpu}/topology"
            tree.write(f"{topology}/physical_package_id", socket)
            tree.write(f"{topology}/core_id", core % self.cores)
            siblings = self.of_core(core)
            tree.write(f"{topology}/core_cpus_list", ranges(siblings))
            tree.write(f"{topology}/core_cpus", mask(siblings, self.count))
            tree.write(f"{topology}/package_cpus", mask(self.of_socket(socket), self.count))
            if self.governor:
                tree.write(f"{base}/cpufreq/policy{cpu}/scaling_governor", self.governor)
            self.write_caches(tree, f"{base}/cpu{cpu}/cache", cpu, core)
        tree.write("/proc/cpuinfo", info)

    def write_caches(self, tree, folder, cpu, core):
        """Below the first processor that shares one, where it is read; the kernel has it below all."""
        first = core // self.l3_cores * self.l3_cores
        shared = {"L3": self.of_cores(range(first, first + self.l3_cores))}
        kinds = {"L1d": ("Data", 1), "L1i": ("Instruction", 1), "L2": ("Unified", 2), "L3": ("Unified", 3)}
        for index, (name, kib) in enumerate(self.caches.items()):
            cpus = shared.get(name, self.of_core(core))
            if cpu != cpus[0]:
                continue
            kind, level = kinds[name]
            cache = f"{folder}/index{index}"
            tree.write(f"{cache}/level", level)
            tree.write(f"{cache}/type", kind)
            tree.write(f"{cache}/size", f"{kib}K")
            tree.write(f"{cache}/shared_cpu_list", ranges(cpus))
            tree.write(f"{cache}/shared_cpu_map", mask(cpus, self.count))

    def stanza(self, cpu, core, socket):
        if self.arm:
            return (f"processor\t: {cpu}\nBogoMIPS\t: 2000.00\nFeatures\t: {self.flags}\n"
                    f"CPU implementer\t: {self.arm[0]}\nCPU architecture: 8\nCPU variant\t: 0x0\n"
                    f"CPU part\t: {self.arm[1]}\nCPU revision\t: 0\n\n")
        return (f"processor\t: {cpu}\nmodel name\t: {self.model}\nphysical id\t: {socket}\n"
                f"siblings\t: {self.cores * self.threads}\ncore id\t\t: {core % self.cores}\n"
                f"cpu cores\t: {self.cores}\nflags\t\t: {self.flags}\n\n")


def memory(tree, cpus, nodes, swap_gib=0, thp="madvise", extra_nodes=()):
    """nodes: memory in GiB of each, its processors an even share; extra_nodes: (id, GiB) without any."""
    total = (sum(nodes) + sum(g for _, g in extra_nodes)) * GIB // 1024
    tree.write("/proc/meminfo", f"MemTotal:       {total} kB\nMemFree:        {total // 2} kB\n"
               f"MemAvailable:   {total * 3 // 4} kB\nSwapTotal:      {swap_gib * GIB // 1024} kB\n")
    tree.write("/sys/kernel/mm/transparent_hugepage/enabled",
               " ".join(f"[{w}]" if w == thp else w for w in ("always", "madvise", "never")))
    for kib in (2048, 1048576):
        tree.write(f"/sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages", 0)
        tree.write(f"/sys/kernel/mm/hugepages/hugepages-{kib}kB/free_hugepages", 0)
    cores = cpus.total // len(nodes)
    per_socket = max(1, len(nodes) // cpus.sockets)
    ids = list(range(len(nodes))) + [i for i, _ in extra_nodes]
    base = "/sys/devices/system/node"
    tree.write(f"{base}/online", ranges(ids))
    for i, gib in list(enumerate(nodes)) + list(extra_nodes):
        own = cpus.of_cores(range(i * cores, (i + 1) * cores)) if i < len(nodes) else []
        kib = gib * GIB // 1024
        tree.write(f"{base}/node{i}/cpulist", ranges(own))
        tree.write(f"{base}/node{i}/cpumap", mask(own, cpus.count))
        tree.write(f"{base}/node{i}/meminfo",
                   f"Node {i} MemTotal:       {kib} kB\nNode {i} MemFree:        {kib // 2} kB\n")
        far = lambda j: 10 if i == j else 12 if i // per_socket == j // per_socket else 32
        tree.write(f"{base}/node{i}/distance", " ".join(str(far(j)) for j in ids))


class Pci:
    def __init__(self, tree):
        self.tree = tree

    def add(self, address, vendor, device, kind, node=-1, gts=None, lanes=None, most_gts=None,
            most_lanes=None, driver=None):
        bus = f"/sys/devices/pci{address[:7]}"
        folder = f"{bus}/{address}"
        self.tree.link(f"/sys/bus/pci/devices/{address}", f"../../../devices/pci{address[:7]}/{address}")
        self.tree.write(f"{folder}/vendor", f"{vendor:#06x}")
        self.tree.write(f"{folder}/device", f"{device:#06x}")
        self.tree.write(f"{folder}/class", f"{kind:#08x}")
        self.tree.write(f"{folder}/numa_node", node)
        if gts:
            self.tree.write(f"{folder}/current_link_speed", f"{gts} GT/s PCIe")
            self.tree.write(f"{folder}/current_link_width", lanes)
            self.tree.write(f"{folder}/max_link_speed", f"{most_gts or gts} GT/s PCIe")
            self.tree.write(f"{folder}/max_link_width", most_lanes or lanes)
        if driver:
            self.tree.link(f"{folder}/driver", f"../../../bus/pci/drivers/{driver}")
        return folder

    def nvidia(self, address, device, model, node=-1, gts=16.0, lanes=16, most=None, kind=0x030200,
               driver=True, most_lanes=None):
        self.add(address, 0x10de, device, kind, node, gts, lanes, most, most_lanes,
                 driver="nvidia" if driver else None)
        if driver:
            self.tree.write(f"/proc/driver/nvidia/gpus/{address}/information",
                            f"Model: \t\t {model}\nIRQ:   \t\t 120\nBus Type: \t PCIe\n"
                            f"Bus Location: \t {address}\nDevice Minor: \t 0\n")

    def ethernet(self, address, name, megabits, node=-1, driver="mlx5_core", up=True, device=0x101d):
        folder = self.add(address, 0x15b3, device, 0x020000, node, 16.0, 16, driver=driver)
        self.tree.write(f"{folder}/net/{name}/type", 1)
        self.tree.write(f"{folder}/net/{name}/speed", megabits)
        self.tree.write(f"{folder}/net/{name}/operstate", "up" if up else "down")
        self.tree.link(f"{folder}/net/{name}/device", f"../../../{address}")
        self.tree.link(f"/sys/class/net/{name}", f"../../devices/pci{address[:7]}/{address}/net/{name}")

    def infiniband(self, address, name, rate, node=-1, device=0x1021):
        folder = self.add(address, 0x15b3, device, 0x020700, node, 32.0, 16, driver="mlx5_core")
        port = f"{folder}/infiniband/{name}/ports/1"
        self.tree.write(f"{port}/link_layer", "InfiniBand")
        self.tree.write(f"{port}/state", "4: ACTIVE")
        self.tree.write(f"{port}/rate", rate)
        self.tree.link(f"/sys/class/infiniband/{name}",
                       f"../../devices/pci{address[:7]}/{address}/infiniband/{name}")

    def nvme(self, address, number, model, size, node=-1, parts=1, major="259:0"):
        folder = self.add(address, 0x144d, 0xa80a, 0x010802, node, 16.0, 4, driver="nvme")
        name = f"nvme{number}n1"
        block = f"{folder}/nvme/nvme{number}/{name}"
        self.tree.write(f"{folder}/nvme/nvme{number}/model", model)
        self.tree.link(f"{block}/device", f"../../nvme{number}")
        self.tree.write(f"{block}/size", size // 512)
        self.tree.write(f"{block}/queue/rotational", 0)
        where = f"../devices/pci{address[:7]}/{address}/nvme/nvme{number}/{name}"
        self.tree.link(f"/sys/block/{name}", where)
        self.tree.link(f"/sys/dev/block/{major}", f"../../{where[3:]}/{name}p1")
        self.tree.write(f"{block}/{name}p1/size", size // 512 - 2048)


def nvidia_driver(tree, version):
    tree.write("/proc/driver/nvidia/version",
               f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Tue Mar  5 22:23:56 UTC 2024\n"
               "GCC version:  gcc version 11.4.0\n")


def process(tree, cpus, cgroup, mounts, allowed=None, kernel="5.15.0-91-generic", shm="", fs=()):
    tree.write("/proc/self/cgroup", cgroup)
    tree.write("/proc/self/status", f"Name:\tsteelyard\nCpus_allowed_list:\t{allowed or ranges(range(cpus.count))}\n")
    lines = list(fs) + [f"25 1 0:23 / /dev/shm rw,nosuid - tmpfs tmpfs rw{shm}"] + list(mounts)
    tree.write("/proc/self/mountinfo", "\n".join(lines))
    tree.write("/proc/sys/kernel/osrelease", kernel)


V2 = ["31 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"]


def v1(root="/"):
    return [f"3{i} 24 0:3{i} {root} /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}"
            for i, name in enumerate(("memory", "cpu,cpuacct", "cpuset"))]


def root_on(device, filesystem="ext4", source="/dev/nvme0n1p1"):
    return [f"22 1 {device} / / rw,relatime - {filesystem} {source} rw"]


AVX2 = "fpu sse2 avx2 sha_ni"
AVX512 = "fpu sse2 avx2 avx512f avx512_vnni avx512_bf16"
AMX = AVX512 + " avx512_fp16 amx_tile"
ZEN2 = {"L1d": 32, "L1i": 32, "L2": 512, "L3": 16384}
ZEN3 = {"L1d": 32, "L1i": 32, "L2": 512, "L3": 32768}
ZEN4 = {"L1d": 32, "L1i": 32, "L2": 1024, "L3": 32768}
NO_LIMIT = 9223372036854771712  # 2^63 less a page: version 1's "none"


def workstation_no_gpu(t):
    """Ryzen 9 7950X, 64 GiB: AMD product page; Linux shows one L3 for each of two chiplets."""
    c = Cpus(1, 16, l3_cores=8, model="AMD Ryzen 9 7950X 16-Core Processor", flags=AVX512,
             caches=ZEN4, governor="powersave")
    c.write(t)
    memory(t, c, [64], swap_gib=8)
    p = Pci(t)
    p.nvme("0000:01:00.0", 0, "Samsung SSD 980 PRO 2TB", 2000398934016, node=0)
    p.ethernet("0000:0a:00.0", "enp10s0", 2500, node=0, driver="igc")
    t.write("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids")
    user = "/user.slice/user-1000.slice/session-2.scope"
    t.write(f"/sys/fs/cgroup{user}/cgroup.controllers", "memory pids cpu")
    t.write(f"/sys/fs/cgroup{user}/memory.max", "max")
    t.write(f"/sys/fs/cgroup{user}/cpu.max", "max 100000")
    process(t, c, f"0::{user}", V2, fs=root_on("259:0"), kernel="6.8.0-45-generic")


def workstation_rtx_4090(t):
    """One GeForce RTX 4090 (idle: its link fell to 2.5 GT/s), a Threadripper PRO 5975WX, x8 slot."""
    c = Cpus(1, 32, l3_cores=8, model="AMD Ryzen Threadripper PRO 5975WX 32-Cores", flags=AVX2,
             caches=ZEN3, governor="schedutil")
    c.write(t)
    memory(t, c, [128])
    p = Pci(t)
    p.nvidia("0000:41:00.0", 0x2684, "NVIDIA GeForce RTX 4090", node=0, gts=2.5, lanes=8, most=16.0,
             most_lanes=16, kind=0x030000)
    p.add("0000:2b:00.0", 0x1a03, 0x2000, 0x030000, driver="ast")  # ASPEED: the board's console
    p.nvme("0000:61:00.0", 0, "WD_BLACK SN850X 4000GB", 4000787030016, node=0)
    nvidia_driver(t, "550.54.15")
    process(t, c, "0::/", V2, fs=root_on("259:0"))


def dgx_a100(t):
    """8 A100 40 GB, two EPYC 7742 with four nodes each: DGX A100 user guide, nvidia-smi topo -m."""
    c = Cpus(2, 64, l3_cores=4, model="AMD EPYC 7742 64-Core Processor", flags=AVX2, caches=ZEN2,
             governor="performance")
    c.write(t)
    memory(t, c, [128] * 8)
    p = Pci(t)
    gpus = ["07", "0f", "47", "4e", "87", "90", "b7", "bd"]
    for bus, node in zip(gpus, (3, 3, 1, 1, 7, 7, 5, 5)):
        p.nvidia(f"0000:{bus}:00.0", 0x20b0, "NVIDIA A100-SXM4-40GB", node=node)
    for i, (bus, node) in enumerate(zip(("0c", "12", "4b", "54", "8d", "94", "ba", "cc"),
                                        (3, 3, 1, 1, 7, 7, 5, 5))):
        p.infiniband(f"0000:{bus}:00.0", f"mlx5_{i}", "200 Gb/sec (4X HDR)", node=node, device=0x101b)
    p.nvme("0000:22:00.0", 0, "SAMSUNG MZ1LB1T9HALS-00007", 1920383410176, node=2)
    p.nvme("0000:09:00.0", 1, "SAMSUNG MZWLJ3T8HBLS-00007", 3840755982336, node=3, major="259:5")
    nvidia_driver(t, "535.129.03")
    process(t, c, "0::/user.slice", V2, fs=root_on("259:0") +
            ["40 22 0:50 / /data rw - nfs4 filer:/export/data rw,vers=4.2"])


def dgx_h100(t):
    """8 H100 80 GB, two Xeon 8480C, 2 TiB: DGX H100 user guide; one NUMA node for each socket."""
    c = Cpus(2, 56, model="Intel(R) Xeon(R) Platinum 8480CL", flags=AMX,
             caches={"L1d": 48, "L1i": 32, "L2": 2048, "L3": 107520}, governor="performance")
    c.write(t)
    memory(t, c, [1024, 1024], thp="always")
    p = Pci(t)
    for i, bus in enumerate(("1b", "43", "52", "61", "9d", "c3", "d1", "df")):
        p.nvidia(f"0000:{bus}:00.0", 0x2330, "NVIDIA H100 80GB HBM3", node=i // 4, gts=32.0)
    for i, bus in enumerate(("18", "40", "4f", "5e", "9a", "c0", "ce", "dc")):
        p.infiniband(f"0000:{bus}:00.0", f"mlx5_{i}", "400 Gb/sec (4X NDR)", node=i // 4)
    for i, bus in enumerate(("1d", "45", "54", "63")):
        p.nvme(f"0000:{bus}:00.0", i, "KIOXIA KCM6DRUL3T84", 3840755982336, node=0, major=f"259:{i}")
    nvidia_driver(t, "535.154.05")
    # /raid is an md array of drives 1 to 3.
    t.write("/sys/devices/virtual/block/md0/size", 22504421376)
    for i in (1, 2, 3):
        t.link(f"/sys/devices/virtual/block/md0/slaves/nvme{i}n1",
               f"../../../../pci0000:{('1d', '45', '54', '63')[i]}/x/nvme{i}n1")
    t.link("/sys/block/md0", "../devices/virtual/block/md0")
    t.link("/sys/dev/block/9:0", "../../devices/virtual/block/md0")
    process(t, c, "0::/", V2, fs=root_on("259:0") + ["41 22 9:0 / /raid rw - ext4 /dev/md0 rw"])


def slurm_v1(t):
    """A quarter of a node with four A100 80 GB under Slurm with cgroup v1 (task/cgroup)."""
    c = Cpus(2, 32, l3_cores=8, model="AMD EPYC 7543 32-Core Processor", flags=AVX2, caches=ZEN3,
             governor="performance")
    c.write(t)
    memory(t, c, [256, 256])
    p = Pci(t)
    for i, bus in enumerate(("01", "41", "81", "c1")):
        p.nvidia(f"0000:{bus}:00.0", 0x20b2, "NVIDIA A100-SXM4-80GB", node=i // 2)
    nvidia_driver(t, "525.105.17")
    job = "/slurm/uid_1000/job_4711"
    step = f"{job}/step_0"
    base = "/sys/fs/cgroup/memory"
    t.write(f"{base}/memory.limit_in_bytes", NO_LIMIT)
    t.write(f"{base}/slurm/memory.limit_in_bytes", NO_LIMIT)
    t.write(f"{base}{job}/memory.limit_in_bytes", 120 * GIB)
    t.write(f"{base}{job}/memory.usage_in_bytes", 5 * GIB)
    t.write(f"{base}{step}/memory.limit_in_bytes", 120 * GIB)
    t.write(f"{base}{step}/memory.usage_in_bytes", 3 * GIB)
    process(t, c, f"8:memory:{step}\n4:cpuset:{step}\n1:name=systemd:/system.slice/slurmd.service\n", v1(),
            allowed="0-15", fs=["22 1 0:20 / / rw - xfs /dev/mapper/root rw",
                                "40 22 0:51 / /lustre rw - lustre 10.0.0.1@o2ib:/fs rw"])
    t.write("/environment", "SLURM_JOB_ID=4711\nSLURM_MEM_PER_CPU=7680\nSLURM_CPUS_ON_NODE=16\n"
            "SLURM_GPUS_ON_NODE=1\n")


def slurm_v2(t):
    """Slurm with cgroup v2: the limit stands at the job, the group of the task says max."""
    c = Cpus(2, 48, model="Intel(R) Xeon(R) Platinum 8468", flags=AMX,
             caches={"L1d": 48, "L1i": 32, "L2": 2048, "L3": 107520}, governor="performance")
    c.write(t)
    memory(t, c, [512, 512])
    p = Pci(t)
    for i, bus in enumerate(("19", "3b", "4c", "5d", "9b", "bb", "cb", "db")):
        p.nvidia(f"0000:{bus}:00.0", 0x2335, "NVIDIA H200", node=i // 4, gts=32.0)
    nvidia_driver(t, "550.90.07")
    job = "/system.slice/slurmstepd.scope/job_99"
    task = f"{job}/step_0/user/task_0"
    base = "/sys/fs/cgroup"
    t.write(f"{base}{task}/cgroup.controllers", "cpuset cpu memory pids")
    t.write(f"{base}{task}/memory.max", "max")
    t.write(f"{base}{job}/step_0/memory.max", 480 * GIB)
    t.write(f"{base}{job}/step_0/memory.current", 12 * GIB)
    t.write(f"{base}{job}/memory.max", 480 * GIB)
    t.write(f"{base}{job}/memory.current", 13 * GIB)
    process(t, c, f"0::{task}", V2, allowed="0-23,96-119", kernel="5.14.0-427.el9.x86_64")
    t.write("/environment", "SLURM_JOB_ID=99\nSLURM_MEM_PER_GPU=122880\nSLURM_GPUS_ON_NODE=4\n"
            "SLURM_CPUS_ON_NODE=48\n")


def kubernetes_v2(t):
    """A pod with 8 processors and 64 GiB, its control group as a namespace of its own, 64 MiB of shm."""
    c = Cpus(2, 32, model="Intel(R) Xeon(R) Platinum 8358", flags=AVX512,
             caches={"L1d": 48, "L1i": 32, "L2": 1280, "L3": 49152}, governor="performance")
    c.write(t)
    memory(t, c, [256, 256])
    p = Pci(t)
    p.nvidia("0000:ca:00.0", 0x20b5, "NVIDIA A100 80GB PCIe", node=1)
    nvidia_driver(t, "535.161.08")
    base = "/sys/fs/cgroup"
    t.write(f"{base}/cgroup.controllers", "cpuset cpu io memory hugetlb pids")
    t.write(f"{base}/memory.max", 64 * GIB)
    t.write(f"{base}/memory.current", 2 * GIB)
    t.write(f"{base}/cpu.max", "800000 100000")
    process(t, c, "0::/", V2, shm=",size=65536k", fs=["22 1 0:60 / / rw - overlay overlay rw"])
    t.write("/environment", "KUBERNETES_SERVICE_HOST=10.96.0.1\n")


def docker_v1(t):
    """docker run --memory 32g --cpus 4 on a host with version 1: /proc names the host's path."""
    c = Cpus(1, 8, model="Intel(R) Xeon(R) CPU E5-2620 v4 @ 2.10GHz", flags="fpu sse2 avx2",
             caches={"L1d": 32, "L1i": 32, "L2": 256, "L3": 20480}, governor="powersave")
    c.write(t)
    memory(t, c, [128])
    p = Pci(t)
    p.nvidia("0000:03:00.0", 0x1b06, "NVIDIA GeForce GTX 1080 Ti", gts=8.0, kind=0x030000)
    p.nvidia("0000:04:00.0", 0x1b06, "NVIDIA GeForce GTX 1080 Ti", gts=8.0, kind=0x030000)
    nvidia_driver(t, "470.223.02")
    own = "/docker/4fa0c1d2"
    t.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", 32 * GIB)
    t.write("/sys/fs/cgroup/memory/memory.usage_in_bytes", GIB)
    t.write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", 400000)
    t.write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", 100000)
    t.write("/.dockerenv", "")
    process(t, c, f"10:memory:{own}\n4:cpu,cpuacct:{own}\n", v1(own), shm=",size=65536k",
            kernel="4.15.0-213-generic", fs=["22 1 0:60 / / rw - overlay overlay rw"])


def xgmi(t, gpus, host_nodes, megabytes):
    base = "/sys/class/kfd/kfd/topology/nodes"
    for n in range(host_nodes):
        t.write(f"{base}/{n}/properties", "cpu_cores_count 96\nlocation_id 0\ndomain 0\n")
    for i, address in enumerate(gpus):
        own = f"{base}/{host_nodes + i}"
        t.write(f"{own}/properties",
                f"simd_count 1216\nlocation_id {int(address[5:7], 16) << 8}\ndomain 0\n")
        others = [j for j in range(len(gpus)) if j != i]
        for k, j in enumerate(others):
            t.write(f"{own}/io_links/{k}/properties", f"type 11\nnode_from {host_nodes + i}\n"
                    f"node_to {host_nodes + j}\nmin_bandwidth {megabytes}\nmax_bandwidth {megabytes}\n")
        t.write(f"{own}/io_links/{len(others)}/properties", f"type 2\nnode_from {host_nodes + i}\n"
                "node_to 0\nmin_bandwidth 312\nmax_bandwidth 64000\n")


def mi300x(t):
    """8 Instinct MI300X, two EPYC 9654, 2.25 TiB: AMD's platform brief; xGMI 64 GB/s a link and way."""
    c = Cpus(2, 96, l3_cores=8, model="AMD EPYC 9654 96-Core Processor", flags=AVX512, caches=ZEN4,
             governor="performance")
    c.write(t)
    memory(t, c, [1152, 1152])
    p = Pci(t)
    gpus = [f"0000:{bus}:00.0" for bus in ("05", "26", "46", "65", "85", "a6", "c6", "e5")]
    for i, address in enumerate(gpus):
        folder = p.add(address, 0x1002, 0x74a1, 0x120000, i // 4, 32.0, 16, driver="amdgpu")
        t.write(f"{folder}/product_name", "AMD Instinct MI300X OAM")
        t.write(f"{folder}/mem_info_vram_total", 206141652992)
        t.write(f"{folder}/mem_info_vram_used", 297795584)
        t.write(f"{folder}/hwmon/hwmon{i}/power1_cap", 750000000)
    xgmi(t, gpus, 2, 64000)
    t.write("/sys/module/amdgpu/version", "6.7.0")
    process(t, c, "0::/", V2, fs=root_on("259:0"))


def mi250x(t):
    """A node as Frontier's: one EPYC 7A53 with four NUMA nodes, eight dies of MI250X, Slurm leaves out
    the first core of each L3 (docs.olcf.ornl.gov, Frontier user guide)."""
    c = Cpus(1, 64, l3_cores=8, model="AMD EPYC 7A53 64-Core Processor", flags=AVX2, caches=ZEN3)
    c.write(t)
    memory(t, c, [128] * 4)
    p = Pci(t)
    gpus = [f"0000:{bus}:00.0" for bus in ("c1", "c6", "c9", "ce", "d1", "d6", "d9", "de")]
    for address, node in zip(gpus, (3, 3, 2, 2, 0, 0, 1, 1)):
        folder = p.add(address, 0x1002, 0x7408, 0x038000, node, 16.0, 16, driver="amdgpu")
        t.write(f"{folder}/mem_info_vram_total", 68702699520)
    t.write("/sys/module/amdgpu/version", "6.3.6")
    own = [i for i in range(128) if i % 8 != 0]
    process(t, c, "0::/system.slice/slurmstepd.scope/job_1/step_0/user/task_0", V2, allowed=ranges(own))
    t.write("/environment", "SLURM_JOB_ID=1\nSLURM_MEM_PER_NODE=0\nSLURM_CPUS_ON_NODE=112\n")


def grace_hopper(t):
    """GH200: 72 cores of Neoverse V2, 480 GiB, the GPU's 96 GB as NUMA node 1 (numa_status)."""
    c = Cpus(1, 72, threads=1, arm=("0x41", "0xd4f"), flags="fp asimd sve sve2 bf16",
             caches={"L1d": 64, "L1i": 64, "L2": 1024, "L3": 116736}, governor="performance")
    c.write(t)
    memory(t, c, [480], thp="always", extra_nodes=[(1, 94)])
    p = Pci(t)
    p.nvidia("0009:01:00.0", 0x2342, "NVIDIA GH200 480GB", node=0, gts=32.0, lanes=1, most_lanes=16)
    t.write("/proc/driver/nvidia/gpus/0009:01:00.0/numa_status",
            "Node:      1\nStatus:    online\n")
    nvidia_driver(t, "550.54.15")
    process(t, c, "0::/", V2, kernel="6.5.0-1019-nvidia-64k", fs=root_on("259:0"))


def grace_grace(t):
    """Grace CPU Superchip: 144 cores, two nodes, no GPU."""
    c = Cpus(2, 72, threads=1, arm=("0x41", "0xd4f"), flags="fp asimd sve sve2 bf16",
             caches={"L1d": 64, "L1i": 64, "L2": 1024, "L3": 116736}, governor="performance")
    c.write(t)
    memory(t, c, [240, 240])
    process(t, c, "0::/", V2, kernel="5.14.0-427.el9.aarch64+64k")


def azure_nd96(t):
    """ND96asr v4: 96 virtual processors in four nodes, eight A100 40 GB, the firmware silent about them."""
    c = Cpus(2, 48, threads=1, l3_cores=4, model="AMD EPYC 7V12 64-Core Processor",
             flags=AVX2 + " hypervisor", caches=ZEN2)
    c.write(t)
    memory(t, c, [225] * 4)
    p = Pci(t)
    for i in range(8):
        p.nvidia(f"{i + 1:04x}:00:00.0", 0x20b0, "NVIDIA A100-SXM4-40GB")
    nvidia_driver(t, "535.86.10")
    process(t, c, "0::/", V2, kernel="5.15.0-1056-azure")


def aws_t4(t):
    """g4dn.xlarge before a driver is installed: 4 virtual processors, one T4, Nitro's NVMe."""
    c = Cpus(1, 2, model="Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz",
             flags="fpu sse2 avx2 avx512f hypervisor", caches={"L1d": 32, "L1i": 32, "L2": 1024, "L3": 36608})
    c.write(t)
    memory(t, c, [15])
    p = Pci(t)
    p.nvidia("0000:00:1e.0", 0x1eb8, "", driver=False, gts=8.0, lanes=8, most_lanes=16)
    p.nvme("0000:00:04.0", 0, "Amazon Elastic Block Store", 107374182400)
    p.nvme("0000:00:1f.0", 1, "Amazon EC2 NVMe Instance Storage", 125000000000, major="259:4")
    p.ethernet("0000:00:05.0", "ens5", -1, driver="ena")
    t.write("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory")
    process(t, c, "0::/user.slice", V2, kernel="6.1.84-99.169.amzn2023.x86_64", fs=root_on("259:0", "xfs"))


def broken(t):
    """Files that hold nonsense: nothing may crash, nothing may be made up."""
    t.write("/proc/cpuinfo", "processor\nphysical id : \x01\n::::\n")
    t.write("/proc/meminfo", "MemTotal: many kB\nMemAvailable: -5 kB\nSwapTotal:\n")
    t.write("/proc/self/cgroup", "0::\n:::\n7:memory:no/slash\n0::/../../..\n")
    t.write("/proc/self/mountinfo", "1 2 3\n4 5 0:6 / /dev/shm rw - tmpfs tmpfs rw,size=99999999999999999999g\n"
            "7 8 0:9 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n1 1 1 1 1 1 - - -\n")
    t.write("/proc/self/status", "Cpus_allowed_list:\t5-2,x\n")
    t.write("/sys/fs/cgroup/cgroup.controllers", "memory cpu")
    t.write("/sys/fs/cgroup/memory.max", "-1")
    t.write("/sys/fs/cgroup/cpu.max", "0 0")
    t.write("/sys/devices/system/cpu/online", "0-99999999999")
    t.write("/sys/devices/system/node/online", "0,zero")
    t.write("/sys/block/sda/size", "lots")
    t.write("/sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de")
    t.write("/sys/bus/pci/devices/0000:01:00.0/class", "0x030200 zz")
    t.write("/sys/bus/pci/devices/0000:01:00.0/current_link_speed", "Unknown")
    t.write("/sys/bus/pci/devices/0000:01:00.0/current_link_width", "63")
    t.write("/sys/bus/pci/devices/0000:01:00.0/numa_node", "-1")
    t.write("/environment", "SLURM_JOB_ID=7\nSLURM_MEM_PER_NODE=lots\nno equals sign\n")


MACHINES = {f.__name__.replace("_", "-"): f for f in (
    workstation_no_gpu, workstation_rtx_4090, dgx_a100, dgx_h100, slurm_v1, slurm_v2, kubernetes_v2,
    docker_v1, mi300x, mi250x, grace_hopper, grace_grace, azure_nd96, aws_t4, broken)}

if __name__ == "__main__":
    if sys.argv[1] == "LIST":
        print("\n".join(MACHINES))
    else:
        MACHINES[sys.argv[1]](Tree(sys.argv[2]))
