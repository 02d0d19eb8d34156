/* What `hv test --kernel` and its init in the guest (init.c) say to each other.
 *
 * In the guest's root file system INIT_FOLDER has the init and a file with what it is to do:
 * strings, each with a NUL at its end: how (INIT_SHELL or INIT_WORDS), the folder to do it in, the
 * command's words. What it says comes over the second serial port in frames: a byte of enum
 * init_frame, the length of what follows in two bytes, the low one first, and that. */
#pragma once

#define INIT_FOLDER  "/.hv"
#define INIT_PROGRAM INIT_FOLDER "/init"
#define INIT_ORDER   INIT_FOLDER "/order"
#define INIT_SHELL   "shell" /* one word: a line for /bin/sh where there is one */
#define INIT_WORDS   "words"
#define INIT_CHANNEL "/dev/ttyS1"

enum init_frame {
    FRAME_BEGIN = 'b',  /* the init runs */
    FRAME_OUTPUT = 'o', /* of the command */
    FRAME_ERRORS = 'e', /* what it writes to its standard error */
    FRAME_STATUS = 's', /* its end: the status, then how many bytes of output and errors there were,
                         * in eight bytes, the low one first */
    FRAME_FAILED = 'f', /* it could not be run: why */
};
enum { FRAME_HEAD = 3, FRAME_STATUS_SIZE = 9, FRAME_DATA_MAX = 4096 };
enum { INIT_ORDER_MAX = 1 << 17, INIT_WORDS_MAX = 4096 };
