#include "system/system_files.h"

#include "system/clock.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const int64_t COMMAND_NANOSECONDS = 3000000000, MILLISECOND = 1000000;

static int join(char *path, const char *root, const char *tail) {
    int length = snprintf(path, PATH_MAX, "%s%s", root, tail);
    return length > 0 && length < PATH_MAX;
}

FILE *system_open(const char *root, const char *tail) {
    char path[PATH_MAX];
    int descriptor = join(path, root, tail) ? open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC) : -1;
    if (descriptor < 0) {
        return NULL;
    }
    FILE *stream = fdopen(descriptor, "rb");
    if (stream == NULL) {
        close(descriptor);
    }
    return stream;
}

static int finish_text(char *text, size_t length) {
    text[length] = '\0';
    length = strlen(text);
    while (length > 0 && isspace((unsigned char)text[length - 1])) {
        text[--length] = '\0';
    }
    return length > 0;
}

int system_text(const char *root, const char *path, char *text, size_t size) {
    FILE *stream = system_open(root, path);
    size_t length = stream == NULL ? 0 : fread(text, 1, size - 1, stream);
    if (stream != NULL) {
        fclose(stream);
    }
    return finish_text(text, length);
}

int64_t parse_number(const char *text) {
    while (isspace((unsigned char)*text)) {
        text++;
    }
    int base = text[0] == '0' && (text[1] == 'x' || text[1] == 'X') ? 16 : 10;
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, base);
    return errno == 0 && end != text && value >= 0 ? (int64_t)value : -1;
}

int64_t system_number(const char *root, const char *path) {
    char text[64];
    return system_text(root, path, text, sizeof text) ? parse_number(text) : -1;
}

static int find_program(char *path, const char *root, const char *program) {
    static const char *const FOLDERS[] = {"/usr/bin/", "/usr/sbin/", "/bin/", "/sbin/", "/usr/local/bin/", "/opt/vc/bin/"};
    for (size_t i = 0; i < sizeof FOLDERS / sizeof *FOLDERS; i++) {
        char tail[PATH_MAX];
        struct stat status;
        if (join(tail, FOLDERS[i], program) && join(path, root, tail) && stat(path, &status) == 0 &&
            S_ISREG(status.st_mode) && (status.st_mode & 0111) != 0) {
            return 1;
        }
    }
    return 0;
}

static pid_t start(const char *path, const char *const *arguments, int output) {
    extern char **environ;
    pid_t child = -1;
    posix_spawn_file_actions_t actions;
    if (posix_spawn_file_actions_init(&actions) != 0) {
        return -1;
    }
    char *words[1 + MOST_ARGUMENTS + 1] = {(char *)(uintptr_t)path};
    for (size_t i = 0; i < MOST_ARGUMENTS && arguments[i] != NULL; i++) {
        words[1 + i] = (char *)(uintptr_t)arguments[i];
    }
    if (posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0) != 0 ||
        posix_spawn_file_actions_adddup2(&actions, output, 1) != 0 ||
        posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0) != 0 ||
        posix_spawn(&child, path, &actions, NULL, words, environ) != 0) {
        child = -1;
    }
    posix_spawn_file_actions_destroy(&actions);
    return child;
}

/* Until the program closes its output or its time is over. */
static size_t collect(int input, char *text, size_t size, int64_t deadline) {
    size_t length = 0;
    while (length < size - 1) {
        struct pollfd waiting = {.fd = input, .events = POLLIN};
        int64_t left = (deadline - clock_nanoseconds()) / MILLISECOND;
        if (left <= 0 || poll(&waiting, 1, (int)left) <= 0) {
            break;
        }
        ssize_t count = read(input, text + length, size - 1 - length);
        if (count <= 0) {
            break;
        }
        length += (size_t)count;
    }
    return length;
}

static int ended_well(pid_t child, int64_t deadline) {
    int status;
    for (;;) {
        pid_t ended = waitpid(child, &status, WNOHANG);
        if (ended != 0) {
            return ended == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
        }
        if (clock_nanoseconds() >= deadline) {
            kill(child, SIGKILL);
            waitpid(child, &status, 0);
            return 0;
        }
        nanosleep(&(struct timespec){.tv_nsec = 2 * MILLISECOND}, NULL);
    }
}

int system_command(const char *root, const char *program, const char *const *arguments, char *text, size_t size) {
    char path[PATH_MAX];
    int ends[2];
    text[0] = '\0';
    if (!find_program(path, root, program) || pipe2(ends, O_CLOEXEC) != 0) {
        return 0;
    }
    int64_t deadline = clock_nanoseconds() + COMMAND_NANOSECONDS;
    pid_t child = start(path, arguments, ends[1]);
    close(ends[1]);
    size_t length = child < 0 ? 0 : collect(ends[0], text, size, deadline);
    close(ends[0]);
    int good = child >= 0 && ended_well(child, deadline);
    return finish_text(text, good ? length : 0);
}
