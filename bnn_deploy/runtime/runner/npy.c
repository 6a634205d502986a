#include "runner/npy.h"

#include <inttypes.h>
#include <string.h>

enum { MAX_HEADER_BYTES = 64 * 1024 };

static const char *const MALFORMED = "has a malformed .npy header";

static void skip_spaces(const char **at) {
    while (**at == ' ' || **at == '\t' || **at == '\n') {
        (*at)++;
    }
}

static int take(const char **at, char expected) {
    skip_spaces(at);
    if (**at != expected) {
        return 0;
    }
    (*at)++;
    return 1;
}

/* A quoted word of printable characters without escapes. */
static int take_word(const char **at, char *word, size_t size) {
    skip_spaces(at);
    char quote = **at;
    if (quote != '\'' && quote != '"') {
        return 0;
    }
    (*at)++;
    size_t length = 0;
    while (**at != quote) {
        if (**at < ' ' || **at > '~' || **at == '\\' || length + 1 == size) {
            return 0;
        }
        word[length++] = *(*at)++;
    }
    (*at)++;
    word[length] = '\0';
    return 1;
}

static int take_truth(const char **at, int *value) {
    skip_spaces(at);
    *value = strncmp(*at, "True", 4) == 0;
    if (!*value && strncmp(*at, "False", 5) != 0) {
        return 0;
    }
    *at += *value ? 4 : 5;
    return 1;
}

static int take_integer(const char **at, int64_t *value) {
    skip_spaces(at);
    if (**at < '0' || **at > '9') {
        return 0;
    }
    for (*value = 0; **at >= '0' && **at <= '9'; (*at)++) {
        if (__builtin_mul_overflow(*value, (int64_t)10, value) ||
            __builtin_add_overflow(*value, (int64_t)(**at - '0'), value)) {
            return 0;
        }
    }
    return 1;
}

static int take_shape(const char **at, npy_header *header) {
    if (!take(at, '(')) {
        return 0;
    }
    header->rank = 0;
    int comma = 1;
    while (!take(at, ')')) {
        if (!comma || header->rank == NPY_MAX_RANK || !take_integer(at, &header->shape[header->rank])) {
            return 0;
        }
        header->rank++;
        comma = take(at, ',');
    }
    return 1;
}

static int parse_dictionary(const char *text, npy_header *header) {
    int has_descr = 0, has_order = 0, has_shape = 0, comma = 1;
    if (!take(&text, '{')) {
        return 0;
    }
    while (!take(&text, '}')) {
        char key[16];
        if (!comma || !take_word(&text, key, sizeof key) || !take(&text, ':')) {
            return 0;
        }
        if (strcmp(key, "descr") == 0 && !has_descr) {
            has_descr = take_word(&text, header->descr, sizeof header->descr);
            if (!has_descr) {
                return 0;
            }
        } else if (strcmp(key, "fortran_order") == 0 && !has_order) {
            has_order = take_truth(&text, &header->fortran_order);
            if (!has_order) {
                return 0;
            }
        } else if (strcmp(key, "shape") == 0 && !has_shape) {
            has_shape = take_shape(&text, header);
            if (!has_shape) {
                return 0;
            }
        } else {
            return 0;
        }
        comma = take(&text, ',');
    }
    skip_spaces(&text);
    return *text == '\0' && has_descr && has_order && has_shape;
}

const char *npy_read_header(FILE *file, npy_header *header) {
    unsigned char prefix[12];
    if (fread(prefix, 1, 10, file) != 10) {
        return "is too short for a .npy file";
    }
    if (memcmp(prefix, "\x93NUMPY", 6) != 0) {
        return "is not a .npy file";
    }
    size_t prefix_bytes = 10;
    size_t length = prefix[8] | (size_t)prefix[9] << 8;
    if (prefix[6] == 2) {
        if (fread(prefix + 10, 1, 2, file) != 2) {
            return "is truncated inside its .npy header";
        }
        prefix_bytes = 12;
        length |= (size_t)prefix[10] << 16 | (size_t)prefix[11] << 24;
    } else if (prefix[6] != 1) {
        return "has a .npy version other than 1 and 2";
    }
    static char text[MAX_HEADER_BYTES + 1];
    if (length > MAX_HEADER_BYTES) {
        return MALFORMED;
    }
    if (fread(text, 1, length, file) != length) {
        return "is truncated inside its .npy header";
    }
    text[length] = '\0';
    header->data_offset = prefix_bytes + length;
    if (strlen(text) != length || !parse_dictionary(text, header)) {
        return MALFORMED;
    }
    return NULL;
}

void npy_print_shape(char *text, size_t size, size_t rank, const int64_t *shape) {
    size_t used = (size_t)snprintf(text, size, "(");
    for (size_t i = 0; i < rank && used < size; i++) {
        used += (size_t)snprintf(text + used, size - used, i == 0 ? "%" PRId64 : ", %" PRId64, shape[i]);
    }
    if (used < size) {
        snprintf(text + used, size - used, rank == 1 ? ",)" : ")");
    }
}

int npy_write_header(FILE *file, const char *descr, size_t rank, const int64_t *shape) {
    char text[1024], shape_text[800];
    npy_print_shape(shape_text, sizeof shape_text, rank, shape);
    int length = snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }", descr, shape_text);
    if (length < 0 || (size_t)length >= sizeof text - 64) {
        return -1;
    }
    /* Spaces up to a line end make the data start at a multiple of 64 bytes. */
    while ((10 + length + 1) % 64 != 0) {
        text[length++] = ' ';
    }
    text[length++] = '\n';
    unsigned char prefix[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (unsigned char)(length & 255),
                                (unsigned char)(length >> 8)};
    return fwrite(prefix, 1, sizeof prefix, file) == sizeof prefix &&
                   fwrite(text, 1, (size_t)length, file) == (size_t)length
               ? 0
               : -1;
}
