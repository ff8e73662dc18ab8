# Shell functions that ./start and ./check share. Sourced, never run.

say() { printf '==> %s\n' "$*"; }

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# as_root COMMAND...: runs it as root: directly, or with sudo when there is one.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null 2>&1; then
    sudo "$@"
  else
    die "installing packages needs root or sudo; as root run: apt-get install -y ${missing[*]}"
  fi
}

# Whether a Debian package is installed, by its status in dpkg's own database.
installed() {
  dpkg-query --show --showformat='${db:Status-Status}\n' "$1" 2>/dev/null |
    grep -qx installed
}

# need_packages NAME...: installs from Debian what is missing of them; asks nothing.
need_packages() {
  command -v dpkg-query >/dev/null 2>&1 ||
    die "this is no Debian system; install by hand what corresponds to: $*"
  missing=()
  local package
  for package in "$@"; do
    installed "$package" || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  say "installing from Debian's packages: ${missing[*]}"
  as_root apt-get update -qq ||
    say "apt-get update failed; going on with the package lists that are here"
  for package in "${missing[@]}"; do
    apt-cache show "$package" >/dev/null 2>&1 ||
      die "no package \"$package\" in the configured sources (Debian 12 has it; see /etc/apt)"
  done
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null ||
    die "could not install: ${missing[*]} (apt-get's own message is above)"
}

# Debian packages that building needs, and those that testing adds.
build_packages=(cmake ninja-build g++ libfmt-dev nlohmann-json3-dev libtomlplusplus-dev
  libcli11-dev libyaml-dev zlib1g-dev pkg-config libhwloc-dev liburing-dev
  libjpeg62-turbo-dev libturbojpeg0-dev libspng-dev libtbb-dev python3)
test_packages=(libgtest-dev libgmock-dev python3-jsonschema libopenmpi-dev openmpi-bin)

# configure PRESET [CMAKE-ARGUMENT...]: once; afterwards the build notices changes itself. What it
# was configured with is kept, so that a change of it configures again.
configure() {
  local preset=$1 folder="build/$1" wanted="$*"
  shift
  if [ -f "$folder/build.ninja" ] && [ "$(cat "$folder/configured-with" 2>/dev/null)" = "$wanted" ]
  then
    return 0
  fi
  say "configuring $preset"
  cmake --preset "$preset" "$@" >"$folder.log" 2>&1 || {
    cat "$folder.log" >&2
    die "cmake could not configure \"$preset\"; its message is above"
  }
  printf '%s' "$wanted" >"$folder/configured-with"
}

# As many compilers as processors, but no more than memory allows: one needs up to about 1 GiB.
jobs() {
  local processors gib
  processors=$(nproc)
  gib=$(awk '/^MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo)
  [ "$gib" -lt 1 ] && gib=1
  [ "$gib" -lt "$processors" ] && processors=$gib
  printf '%s' "$processors"
}
