#include "runner/output_file.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_OPEN = 2 };

/* Read by the signal handler: a name is here only while its file exists. */
static char *volatile unfinished[MAX_OPEN];

void output_files_discard(void) {
    for (int i = 0; i < MAX_OPEN; i++) {
        char *name = unfinished[i];
        if (name != NULL) {
            unlink(name);
            unfinished[i] = NULL;
        }
    }
}

static void discard_and_exit(int signal_number) {
    output_files_discard();
    _exit(128 + signal_number);
}

static int publish(char *name) {
    for (int i = 0; i < MAX_OPEN; i++) {
        if (unfinished[i] == NULL) {
            unfinished[i] = name;
            return 0;
        }
    }
    errno = EMFILE;
    return -1;
}

/* Signals that were ignored, as SIGHUP under nohup, stay ignored. */
static void handle(const sigset_t *signals) {
    for (int number = 1; number < NSIG; number++) {
        if (sigismember(signals, number) == 1 && signal(number, discard_and_exit) == SIG_IGN) {
            signal(number, SIG_IGN);
        }
    }
    signal(SIGXFSZ, SIG_IGN); /* a file-size limit becomes an error of write */
}

/* Makes the temporary file and publishes its name; no signal can come between the two. */
static int create(char *name) {
    sigset_t signals, before;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    handle(&signals);
    sigprocmask(SIG_BLOCK, &signals, &before);
    int descriptor = mkstemp(name);
    if (descriptor >= 0 && publish(name) != 0) {
        close(descriptor);
        unlink(name);
        descriptor = -1;
    }
    int reason = errno;
    sigprocmask(SIG_SETMASK, &before, NULL);
    errno = reason;
    return descriptor;
}

int output_file_open(output_file *file, const char *path) {
    struct stat status;
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode)) {
        errno = S_ISDIR(status.st_mode) ? EISDIR : EINVAL;
        return -1;
    }
    size_t size = strlen(path) + 32;
    file->path = path;
    file->temporary = malloc(size);
    if (file->temporary == NULL) {
        return -1;
    }
    snprintf(file->temporary, size, "%s.partial-XXXXXX", path);
    int descriptor = create(file->temporary);
    if (descriptor < 0) {
        return -1;
    }
    mode_t mask = umask(0);
    umask(mask);
    fchmod(descriptor, 0666 & ~mask);
    file->stream = fdopen(descriptor, "wb");
    return file->stream == NULL ? -1 : 0;
}

int output_file_finish(output_file *file) {
    int failed = fflush(file->stream) != 0;
    int reason = errno;
    if (fclose(file->stream) != 0 && !failed) {
        failed = 1;
        reason = errno;
    }
    if (!failed && rename(file->temporary, file->path) != 0) {
        failed = 1;
        reason = errno;
    }
    if (failed) {
        errno = reason;
        return -1;
    }
    for (int i = 0; i < MAX_OPEN; i++) {
        if (unfinished[i] == file->temporary) {
            unfinished[i] = NULL;
        }
    }
    free(file->temporary);
    return 0;
}
