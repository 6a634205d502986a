/* Pieces of JSON. A number below zero, and an empty text, stand for "unknown" and become null. */
#ifndef BNN_SYSTEM_JSON_TEXT_H
#define BNN_SYSTEM_JSON_TEXT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* A quoted string; text must be UTF-8. */
void json_text(FILE *stream, const char *text);

/* A quoted string of foreign text, with ? for everything but printable ASCII, or null. */
void json_foreign_text(FILE *stream, const char *text);

void json_integer(FILE *stream, int64_t number);

/* Nine digits: more than any clock resolves. */
void json_number(FILE *stream, double number);

/* A field of an object. */
typedef struct json_count {
    const char *name;
    int64_t number;
} json_count;

/* Further fields of an object, a comma before each. */
void json_counts(FILE *stream, const json_count *fields, size_t count);

void json_numbers(FILE *stream, const double *numbers, size_t count);

#endif
