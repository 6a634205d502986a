/* A static program that prints the state of the system it runs on, as JSON; needs nothing there. */
#include "system/json_text.h"
#include "system/system_state.h"

#include <string.h>

int main(int count, char **words) {
    static system_state state;
    const char *root = "";
    if (count == 3 && strcmp(words[1], "--root") == 0) {
        root = words[2];
    } else if (count != 1) {
        fputs("probe: it takes no options but --root FOLDER, which has the files of another system.\n", stderr);
        return 2;
    }
    system_state_read(&state, root);
    system_state_write(stdout, &state);
    fputc('\n', stdout);
    if (ferror(stdout) || fflush(stdout) != 0) {
        fputs("probe: cannot write to standard output.\n", stderr);
        return 2;
    }
    return 0;
}
