/* The state of the machine for TVM's RPC: in model.so, and in a library of its own for when there is no model. */
#include "system/system_state.h"
#include "tvm/call.h"

#include <stdlib.h>

/* bnn_system_state(text): what `runner --system` prints; the length of the text, or a bnn_status negated. */
TVM_FUNCTION(bnn_system_state) {
    (void)self;
    system_state *state = malloc(sizeof *state);
    if (state == NULL) {
        return tvm_give(result, -BNN_ERROR_MEMORY);
    }
    tvm_text text;
    int64_t length = text_open(&text, count == 1 ? arguments : NULL);
    if (length == 0) {
        system_state_read(state, "");
        system_state_write(text.stream, state);
        length = text_finish(&text);
    }
    free(state);
    return tvm_give(result, length);
}
