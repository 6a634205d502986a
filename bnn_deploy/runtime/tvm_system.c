/* The state of the machine for TVM's RPC: in model.so, and in a library of its own for when there is no model. */
#include "system_state.h"
#include "tvm_call.h"

#include <stdlib.h>

/* bnn_system_state(text): what `runner --system` prints; the length of the text, or a bnn_status negated. */
TVM_FUNCTION(bnn_system_state) {
    (void)self;
    tvm_text text;
    tvm_buffer place = count == 1 ? tvm_bytes(&arguments[0]) : (tvm_buffer){NULL, 0};
    if (place.data == NULL) {
        return tvm_give(result, -BNN_ERROR_ARGUMENT);
    }
    system_state *state = malloc(sizeof *state);
    if (state == NULL || !text_open(&text)) {
        free(state);
        return tvm_give(result, -BNN_ERROR_MEMORY);
    }
    system_state_read(state, "");
    system_state_write(text.stream, state);
    free(state);
    return tvm_give(result, text_finish(&text, place));
}
