/* What small files and programs of the system say; one that is missing, or cannot be read, says nothing. */
#ifndef BNN_SYSTEM_SYSTEM_FILES_H
#define BNN_SYSTEM_SYSTEM_FILES_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* All paths begin with / and are looked up below the folder `root`; "" is the system itself. */

/* Opens for reading, without waiting for whoever writes to a pipe of that name. NULL when it cannot be read. */
FILE *system_open(const char *root, const char *path);

/* The file's first bytes, up to the first NUL and without white space at the end. Whether there is any text. */
int system_text(const char *root, const char *path, char *text, size_t size);

/* The whole number, decimal or hexadecimal after 0x, that a file begins with; -1 when it begins with none. */
int64_t system_number(const char *root, const char *path);

enum { MOST_ARGUMENTS = 4 };

/* The first bytes of a program's standard output. It is looked for in the usual folders, runs without a shell and without
 * standard error, and is killed after three seconds. Whether it ended with status 0 and said something. `arguments` are at most
 * MOST_ARGUMENTS, and a NULL at the end. */
int system_command(const char *root, const char *program, const char *const *arguments, char *text, size_t size);

/* A number of at most 63 bits after optional white space, decimal or hexadecimal after 0x; -1 when there is none. */
int64_t parse_number(const char *text);

#endif
