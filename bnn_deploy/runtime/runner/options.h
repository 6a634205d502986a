/* What the runner is told on its command line. */
#ifndef BNN_RUNNER_OPTIONS_H
#define BNN_RUNNER_OPTIONS_H

typedef struct options {
    const char *input, *output, *profile, *taps, *observed, *forced;
    int threads, repeat, warmup, info, system;
} options;

/* Ends the program with a sentence unless the words fit together, and with the usage for --help. */
options options_parse(int count, char **words);

#endif
