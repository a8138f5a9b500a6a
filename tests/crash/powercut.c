/* Preloaded into the service: writes down what is written to its database and what is synced, so that a cut
 * of power can be made of a kill (tests/crash/power.py undoes what was not synced), and kills at a given call.
 *
 * POWERCUT_FOLDER  the folder whose files count; -shm is memory, and does not
 * POWERCUT_LOG     the record, appended to: see `struct record`
 * POWERCUT_KILL    "KIND SUFFIX N": SIGKILL this process and its parent before the n-th write ("w"), before ("b")
 *                  or after ("a") the n-th sync of a file whose name ends so
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct record {
    char kind;          /* w: write, t: truncate, s: sync, also of a folder, k: killed here; and of names
                           c: made, r: renamed to `new`, u: unlinked, linked as `new` before */
    char padding[3];
    uint32_t name_length;
    int64_t offset;     /* of a write; the new size of a truncate */
    int64_t old_size;
    uint32_t old_length; /* how much was there before ... */
    uint32_t new_length; /* ... and is there after; both follow the name */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

/* The path of a file of the database that is open as fd, or 0. */
static int tracked(int fd, char *path) {
    static __thread int within;
    const char *folder = getenv("POWERCUT_FOLDER");
    char link[64];
    ssize_t length;
    if (!folder || within || fd == log_fd) return 0;
    within = 1;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, PATH_MAX - 1);
    within = 0;
    if (length <= 0) return 0;
    path[length] = 0;
    if (strncmp(path, folder, strlen(folder)) != 0) return 0;
    if (length > 4 && strcmp(path + length - 4, "-shm") == 0) return 0;
    return strstr(path, ".db") != NULL && strstr(path, ".lock") == NULL;
}

/* Whether a name counts. */
static int named(const char *path) {
    const char *folder = getenv("POWERCUT_FOLDER");
    size_t length = strlen(path), above = folder ? strlen(folder) : 0;
    return folder && strncmp(path, folder, above) == 0 && (path[above] == '/' || path[above] == 0) &&
           !(length > 4 && strcmp(path + length - 4, "-shm") == 0) && strstr(path, ".lock") == NULL;
}

/* The path of a folder that counts and is open as fd, or 0. */
static int folder_of(int fd, char *path) {
    char link[64];
    struct stat status;
    ssize_t length;
    if (fstat(fd, &status) != 0 || !S_ISDIR(status.st_mode)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return named(path);
}

static void append(char kind, const char *path, int64_t offset, int64_t old_size, const void *old,
                   uint32_t old_length, const void *new, uint32_t new_length) {
    ssize_t (*writev_)(int, const struct iovec *, int) = real("writev");
    struct record record = {kind, {0}, (uint32_t)strlen(path), offset, old_size, old_length, new_length};
    struct iovec parts[4] = {{&record, sizeof record},
                             {(void *)path, record.name_length},
                             {(void *)old, old_length},
                             {(void *)new, new_length}};
    if (log_fd < 0) log_fd = ((int (*)(const char *, int, ...))real("open"))(
        getenv("POWERCUT_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (writev_(log_fd, parts, 4) < 0) abort();
}

static void perhaps_kill(char kind, const char *path) {
    static int count;
    const char *plan = getenv("POWERCUT_KILL");
    char wanted, suffix[64];
    int n;
    size_t length = strlen(path);
    if (!plan || sscanf(plan, "%c %63s %d", &wanted, suffix, &n) != 3 || wanted != kind) return;
    if (length < strlen(suffix) || strcmp(path + length - strlen(suffix), suffix) != 0) return;
    if (++count == n) {
        pid_t parent = getppid();
        append('k', path, 0, 0, NULL, 0, NULL, 0);
        kill(parent, SIGKILL);
        kill(getpid(), SIGKILL);
    }
}

static ssize_t noted_write(int fd, const void *data, size_t length, off_t offset,
                           ssize_t (*write_)(int, const void *, size_t, off_t)) {
    char path[PATH_MAX];
    struct stat before;
    char *old;
    ssize_t there, written;
    if (!tracked(fd, path) || fstat(fd, &before) != 0) return write_(fd, data, length, offset);
    pthread_mutex_lock(&lock);
    perhaps_kill('w', path);
    old = malloc(length ? length : 1);
    there = ((ssize_t (*)(int, void *, size_t, off_t))real("pread"))(fd, old, length, offset);
    append('w', path, offset, before.st_size, old, there > 0 ? (uint32_t)there : 0, data, (uint32_t)length);
    free(old);
    written = write_(fd, data, length, offset);
    pthread_mutex_unlock(&lock);
    return written;
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    return noted_write(fd, data, length, offset, real("pwrite"));
}

ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset) {
    return noted_write(fd, data, length, offset, real("pwrite64"));
}

static int noted_truncate(int fd, off_t size, int (*truncate_)(int, off_t)) {
    char path[PATH_MAX];
    struct stat before;
    int result;
    if (!tracked(fd, path) || fstat(fd, &before) != 0) return truncate_(fd, size);
    pthread_mutex_lock(&lock);
    {
        size_t lost = before.st_size > size ? (size_t)(before.st_size - size) : 0;
        char *old = malloc(lost ? lost : 1);
        ssize_t there = ((ssize_t (*)(int, void *, size_t, off_t))real("pread"))(fd, old, lost, size);
        append('t', path, size, before.st_size, old, there > 0 ? (uint32_t)there : 0, NULL, 0);
        free(old);
    }
    result = truncate_(fd, size);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int fd, off_t size) { return noted_truncate(fd, size, real("ftruncate")); }
int ftruncate64(int fd, off_t size) { return noted_truncate(fd, size, real("ftruncate64")); }

static int noted_sync(int fd, int (*sync_)(int)) {
    char path[PATH_MAX];
    int result;
    if (!tracked(fd, path) && !folder_of(fd, path)) return sync_(fd);
    pthread_mutex_lock(&lock);
    perhaps_kill('b', path);
    result = sync_(fd);
    if (result == 0) append('s', path, 0, 0, NULL, 0, NULL, 0);
    perhaps_kill('a', path);
    pthread_mutex_unlock(&lock);
    return result;
}

int fsync(int fd) { return noted_sync(fd, real("fsync")); }
int fdatasync(int fd) { return noted_sync(fd, real("fdatasync")); }

static int noted_open(const char *name, const char *path, int flags, mode_t mode) {
    int (*open_)(const char *, int, ...) = real(name);
    int fd, is_new;
    if (!(flags & O_CREAT) || !named(path)) return open_(path, flags, mode);
    pthread_mutex_lock(&lock);
    is_new = access(path, F_OK) != 0;
    fd = open_(path, flags, mode);
    if (fd >= 0 && is_new) append('c', path, 0, 0, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return fd;
}

#define OPEN(name)                                      \
    int name(const char *path, int flags, ...) {        \
        mode_t mode = 0;                                \
        if (flags & (O_CREAT | __O_TMPFILE)) {          \
            va_list rest;                               \
            va_start(rest, flags);                      \
            mode = va_arg(rest, mode_t);                \
            va_end(rest);                               \
        }                                               \
        return noted_open(#name, path, flags, mode);    \
    }
OPEN(open)
OPEN(open64)

int mkdir(const char *path, mode_t mode) {
    int result = ((int (*)(const char *, mode_t))real("mkdir"))(path, mode);
    if (result == 0 && named(path)) append('c', path, 0, 0, NULL, 0, NULL, 0);
    return result;
}

int link(const char *from, const char *path) {
    int result = ((int (*)(const char *, const char *))real("link"))(from, path);
    if (result == 0 && named(path)) append('c', path, 0, 0, NULL, 0, NULL, 0);
    return result;
}

int rename(const char *from, const char *to) {
    int result = ((int (*)(const char *, const char *))real("rename"))(from, to);
    if (result == 0 && named(to)) append('r', from, 0, 0, NULL, 0, to, (uint32_t)strlen(to));
    return result;
}

int unlink(const char *path) {
    static int count;
    int (*unlink_)(const char *) = real("unlink");
    char kept[PATH_MAX];
    int result;
    if (!named(path)) return unlink_(path);
    pthread_mutex_lock(&lock);
    snprintf(kept, sizeof kept, "%s.%d.%d", getenv("POWERCUT_LOG"), getpid(), ++count);
    ((int (*)(const char *, const char *))real("link"))(path, kept);
    result = unlink_(path);
    if (result == 0) append('u', path, 0, 0, NULL, 0, kept, (uint32_t)strlen(kept));
    pthread_mutex_unlock(&lock);
    return result;
}
