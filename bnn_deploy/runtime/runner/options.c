#include "runner/options.h"

#include "runner/files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char USAGE[] =
    "usage: runner --input X.npy --output Y.npy [--threads N]\n"
    "              [--taps T.npy --observed O.npy [--forced F.npy]]\n"
    "       runner --input X.npy --profile PROFILE.json [--repeat N] [--warmup N] [--threads N]\n"
    "       runner --info\n"
    "       runner --system\n"
    "\n"
    "X.npy is little-endian and C-ordered; its first dimension is any multiple of the network's batch.\n"
    "T.npy holds taps, int64 (taps, 9), as bnn_model.h describes them. O.npy gets what they see and F.npy holds what they\n"
    "force, both uint8 with one row for each batch.\n"
    "The profile times the first batch of X.npy: seconds of every step (kernel call) in every repeat, and the state of\n"
    "the machine before and after. --system prints that state as JSON.\n";

static int parse_count(const char *option, const char *text, int minimum, int maximum) {
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < minimum || value > maximum) {
        fail("%s takes a whole number from %d to %d, found '%s'.", option, minimum, maximum, text);
    }
    return (int)value;
}

/* Where an option puts what it is told: a flag, or the next word, perhaps as a number. */
typedef struct option {
    const char *name;
    int *flag;
    const char **word;
    int *count, minimum, maximum;
} option;

static const option *find_option(const option *known, size_t count, const char *name) {
    for (size_t i = 0; i < count; i++) {
        if (strcmp(known[i].name, name) == 0) {
            return &known[i];
        }
    }
    fail("unknown option '%s'; --help lists the options.", name);
}

options options_parse(int count, char **words) {
    options chosen = {.threads = 1, .repeat = 20, .warmup = 3};
    const option known[] = {
        {.name = "--info", .flag = &chosen.info},
        {.name = "--system", .flag = &chosen.system},
        {.name = "--input", .word = &chosen.input},
        {.name = "--output", .word = &chosen.output},
        {.name = "--profile", .word = &chosen.profile},
        {.name = "--taps", .word = &chosen.taps},
        {.name = "--observed", .word = &chosen.observed},
        {.name = "--forced", .word = &chosen.forced},
        {.name = "--threads", .count = &chosen.threads, .minimum = 1, .maximum = BNN_MAX_THREADS},
        {.name = "--repeat", .count = &chosen.repeat, .minimum = 1, .maximum = 1000000},
        {.name = "--warmup", .count = &chosen.warmup, .minimum = 0, .maximum = 1000000},
    };
    for (int i = 1; i < count; i++) {
        if (strcmp(words[i], "--help") == 0) {
            fputs(USAGE, stdout);
            exit(0);
        }
        const option *found = find_option(known, sizeof known / sizeof *known, words[i]);
        if (found->flag != NULL) {
            *found->flag = 1;
            continue;
        }
        if (++i == count) {
            fail("%s needs a value.", found->name);
        }
        if (found->word != NULL) {
            *found->word = words[i];
        } else {
            *found->count = parse_count(found->name, words[i], found->minimum, found->maximum);
        }
    }
    if (!chosen.info && !chosen.system && (chosen.input == NULL || (chosen.output == NULL && chosen.profile == NULL))) {
        fail("give --input with --output or --profile, or --info, or --system; --help lists the options.");
    }
    if ((chosen.taps == NULL) != (chosen.observed == NULL) || (chosen.taps == NULL && chosen.forced != NULL) ||
        (chosen.taps != NULL && chosen.output == NULL)) {
        fail("--taps goes with --output and --observed, and --forced with --taps; --help lists the options.");
    }
    return chosen;
}
