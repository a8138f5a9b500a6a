/* Preloaded into the service: makes a disk of its database's that fails, or is slow (tests/crash/disk_faults.py).
 *
 * DISKFAULT_FOLDER  the folder whose files count; -shm is memory, and does not
 * DISKFAULT_LOG     appended to: "KIND NAME" for each call, "fault NAME" for each that failed
 * DISKFAULT_PLAN    "KIND SUFFIX N ERRNO UNTIL": the n-th write or truncation ("w") or sync ("s") of files whose name
 *                   ends so fails with this number, and so do those behind it, up to UNTIL
 * DISKFAULT_SYNC_MS how long each sync takes
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static void note(const char *kind, const char *name) {
    static int log_fd = -1;
    char line[PATH_MAX + 16];
    int length = snprintf(line, sizeof line, "%s %s\n", kind, name);
    if (log_fd < 0) log_fd = open(getenv("DISKFAULT_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (write(log_fd, line, (size_t)length) != length) abort();
}

/* The name of a file of the database that is open as fd, in path; or 0. */
static const char *tracked(int fd, char *path) {
    const char *folder = getenv("DISKFAULT_FOLDER");
    char link[64];
    ssize_t length;
    if (!folder) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    if (strncmp(path, folder, strlen(folder)) != 0 || !strstr(path, ".db") || strstr(path, "-shm")) return 0;
    return strrchr(path, '/') + 1;
}

/* Whether this call fails; errno then says how. */
static int fails(const char *kind, int fd) {
    static long count;
    const char *plan = getenv("DISKFAULT_PLAN"), *name;
    char path[PATH_MAX], wanted[8], suffix[64];
    long n, until;
    int number, failed = 0;
    if (!(name = tracked(fd, path))) return 0;
    pthread_mutex_lock(&lock);
    note(kind, name);
    if (plan && sscanf(plan, "%7s %63s %ld %d %ld", wanted, suffix, &n, &number, &until) == 5 &&
        strcmp(kind, wanted) == 0 && strlen(name) >= strlen(suffix) &&
        strcmp(name + strlen(name) - strlen(suffix), suffix) == 0 && ++count >= n && count <= until) {
        note("fault", name);
        failed = 1;
    }
    pthread_mutex_unlock(&lock);
    if (failed) errno = number;
    return failed;
}

/* Half of a write that fails is there. */
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    ssize_t (*write_)(int, const void *, size_t, off_t) = real("pwrite");
    if (!fails("w", fd)) return write_(fd, data, length, offset);
    int number = errno;
    if (write_(fd, data, length / 2, offset) < 0) abort();
    errno = number;
    return -1;
}
ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset) { return pwrite(fd, data, length, offset); }

int ftruncate(int fd, off_t size) { return fails("w", fd) ? -1 : ((int (*)(int, off_t))real("ftruncate"))(fd, size); }
int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

static int synced(int fd, const char *name) {
    const char *slow = getenv("DISKFAULT_SYNC_MS");
    char path[PATH_MAX];
    if (slow && tracked(fd, path)) usleep((useconds_t)atoi(slow) * 1000);
    return fails("s", fd) ? -1 : ((int (*)(int))real(name))(fd);
}

int fsync(int fd) { return synced(fd, "fsync"); }
int fdatasync(int fd) { return synced(fd, "fdatasync"); }
