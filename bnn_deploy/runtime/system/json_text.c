#include "system/json_text.h"

#include <inttypes.h>

static void put(FILE *stream, unsigned char byte) {
    if (byte == '"' || byte == '\\') {
        fprintf(stream, "\\%c", byte);
    } else if (byte < 0x20) {
        fprintf(stream, "\\u%04x", byte);
    } else {
        fputc(byte, stream);
    }
}

void json_text(FILE *stream, const char *text) {
    fputc('"', stream);
    for (const unsigned char *at = (const unsigned char *)text; *at != '\0'; at++) {
        put(stream, *at);
    }
    fputc('"', stream);
}

void json_foreign_text(FILE *stream, const char *text) {
    if (*text == '\0') {
        fputs("null", stream);
        return;
    }
    fputc('"', stream);
    for (const unsigned char *at = (const unsigned char *)text; *at != '\0'; at++) {
        put(stream, *at >= 0x20 && *at < 0x7f ? *at : '?');
    }
    fputc('"', stream);
}

void json_integer(FILE *stream, int64_t number) {
    if (number < 0) {
        fputs("null", stream);
    } else {
        fprintf(stream, "%" PRId64, number);
    }
}

void json_counts(FILE *stream, const json_count *fields, size_t count) {
    for (size_t i = 0; i < count; i++) {
        fprintf(stream, ", \"%s\": ", fields[i].name);
        json_integer(stream, fields[i].number);
    }
}

void json_number(FILE *stream, double number) {
    if (number >= 0) {
        fprintf(stream, "%.9g", number);
    } else {
        fputs("null", stream);
    }
}

void json_numbers(FILE *stream, const double *numbers, size_t count) {
    fputc('[', stream);
    for (size_t i = 0; i < count; i++) {
        fprintf(stream, i == 0 ? "%.9g" : ", %.9g", numbers[i]);
    }
    fputc(']', stream);
}
