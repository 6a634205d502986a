/* Prints which kernel set runtime/cpu/kernel_set.c chooses for the machine whose /sys and /proc are in a folder. */
#include "cpu/kernel_set.c"

static const bnn_kernels SETS[] = {{"out-of-order", NULL, NULL}, {"in-order", NULL, NULL}};
const bnn_plan bnn_network = {.kernel_sets = SETS, .kernel_set_count = 2};

int main(int argc, char **argv) {
    return argc == 2 && printf("%s", choose(SETS, 2, argv[1])->name) > 0 ? 0 : 1;
}
