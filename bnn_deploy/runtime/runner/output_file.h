/* A file that appears under its name only when it is complete. */
#ifndef BNN_RUNNER_OUTPUT_FILE_H
#define BNN_RUNNER_OUTPUT_FILE_H

#include <stdio.h>

typedef struct output_file {
    const char *path;
    char *temporary; /* a sibling of path, removed unless finished; also when SIGINT, SIGTERM or SIGHUP arrives */
    FILE *stream;
} output_file;

/* 0 on success, else -1 with errno set; the path must not exist or be a regular file. */
int output_file_open(output_file *file, const char *path);

/* Writes out everything and renames the file to its path. 0 on success, else -1 with errno set. */
int output_file_finish(output_file *file);

/* Removes what unfinished files have left. */
void output_files_discard(void);

#endif
