#ifndef BNN_SYSTEM_EMULATION_H
#define BNN_SYSTEM_EMULATION_H

/* Whether this program runs under an emulator of another processor, as qemu's user mode: its times say nothing then. */
int running_under_emulation(void);

#endif
