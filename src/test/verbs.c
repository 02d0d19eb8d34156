/* The verbs of the test language; see verbs.h. */
#include "test/verbs.h"

const struct test_verb test_verbs[] = {
    /* What the test is about. */
    { VERB_TEST, "test", "STRING", "what this test shows", IN_FILE, BLOCK_NONE },
    { VERB_VM, "vm", "[WORD]", "a machine: options of hv run, one to a line", IN_FILE, BLOCK_VM },
    { VERB_KEEP, "keep", "", "what is written to the disks stays", IN_VM, BLOCK_NONE },
    { VERB_SHA256, "sha256", "WORD", "of the disk or CD in the line before", IN_VM, BLOCK_NONE },
    { VERB_WATCH, "watch", "WORD...", "which crashes end the test: linux, warn, boot, none",
      IN_FILE, BLOCK_NONE },
    { VERB_LIMIT, "limit", "DURATION", "how long the whole test may take", IN_FILE, BLOCK_NONE },
    { VERB_INCLUDE, "include", "FILE", "the lines of another file", IN_FILE | IN_BODY, BLOCK_NONE },
    { VERB_MATRIX, "matrix", "", "settings and their values: one run for each combination", IN_FILE,
      BLOCK_MATRIX },
    { VERB_SKIP, "skip unless", "(host WORD | file FILE | kvm)", "not run where that is missing",
      IN_FILE | IN_BODY, BLOCK_NONE },

    /* How it is arranged. */
    { VERB_STEP, "step", "STRING", "a part of the test with a result of its own", IN_FILE,
      BLOCK_MUST },
    { VERB_BOOT, "boot", "", "starts the machine, or starts it again", IN_FILE | IN_BODY,
      BLOCK_MAY },
    { VERB_REPEAT, "repeat", "COUNT", "does the lines below so often", IN_BODY, BLOCK_MUST },

    /* The machine. */
    { VERB_REBOOT, "reboot", "[within DURATION]", "has the guest shut down, and starts it again",
      IN_BODY, BLOCK_NONE },
    { VERB_POWEROFF, "poweroff", "[within DURATION]", "presses the power button; the machine ends",
      IN_BODY, BLOCK_NONE },
    { VERB_OFF, "off", "[within DURATION]", "waits until the guest has shut down", IN_BODY,
      BLOCK_NONE },
    { VERB_POWER_CUT, "power cut", "", "pulls the plug", IN_BODY, BLOCK_NONE },
    { VERB_RESET, "reset", "", "presses the reset button", IN_BODY, BLOCK_NONE },
    { VERB_PAUSE, "pause", "", "stops the machine's time", IN_BODY, BLOCK_NONE },
    { VERB_RESUME, "resume", "", "lets it go on", IN_BODY, BLOCK_NONE },

    /* What is to be seen. */
    { VERB_SEE, "see", "[screen | serial] (prompt | TEXT...) [within DURATION]",
      "waits until all of it stands on the screen or came from the serial port", IN_BODY,
      BLOCK_NONE },
    { VERB_NOT_SEE, "not see", "[screen | serial] TEXT... [within DURATION]",
      "none of it is there now, nor within the time", IN_BODY, BLOCK_NONE },
    { VERB_LOG, "log", "TEXT... [within DURATION]", "waits until the serial port's log has it",
      IN_BODY, BLOCK_NONE },
    { VERB_NOT_LOG, "not log", "TEXT...", "the log since the last start does not have it", IN_BODY,
      BLOCK_NONE },
    { VERB_STILL, "still", "DURATION [within DURATION]",
      "waits until the screen has not changed for so long", IN_BODY, BLOCK_NONE },
    { VERB_CHANGE, "change", "[within DURATION]", "waits until the screen changes", IN_BODY,
      BLOCK_NONE },
    { VERB_EVENT, "event", "WORD [within DURATION]", "waits for an event of the machine", IN_BODY,
      BLOCK_NONE },
    { VERB_CRASH, "crash", "TEXT... [within DURATION]",
      "waits until the guest crashes, and says all of it", IN_BODY, BLOCK_NONE },
    { VERB_SCREENSHOT, "screenshot", "[WORD]", "keeps the picture", IN_BODY, BLOCK_NONE },

    /* What the user does. */
    { VERB_TYPE, "type", "[serial] PIECE...", "types on the keyboard, or into the serial port",
      IN_BODY, BLOCK_NONE },
    { VERB_KEY, "key", "WORD...", "presses keys: enter, ctrl+alt+del", IN_BODY, BLOCK_NONE },
    { VERB_CLICK, "click", "[left | middle | right | double] (at POINT | TEXT) [within DURATION]",
      "clicks on what stands on the screen, or a pixel of it", IN_BODY, BLOCK_NONE },
    { VERB_MOVE, "move", "(at POINT | TEXT) [within DURATION]", "moves the pointer there", IN_BODY,
      BLOCK_NONE },
    { VERB_SCROLL, "scroll", "(up | down) [COUNT]", "turns the mouse's wheel", IN_BODY,
      BLOCK_NONE },
    { VERB_SET, "set", "WORD", "changes a setting, as hv set does: cd=FILE, memory=1G", IN_BODY,
      BLOCK_NONE },
    { VERB_EJECT, "eject", "[cd | fd]", "takes the CD or floppy out", IN_BODY, BLOCK_NONE },
    { VERB_NET, "net", "(on | off)", "puts the network cable in, or pulls it", IN_BODY,
      BLOCK_NONE },

    /* Commands. */
    { VERB_RUN, "run", "STRING [-> TEXT] [within DURATION]",
      "types a command at the shell prompt on the screen; its output has the text", IN_BODY,
      BLOCK_NONE },
    { VERB_GUEST, "guest", "REST", "runs a command in the guest, which has to end with status 0",
      IN_BODY, BLOCK_NONE },
    { VERB_HOST, "host", "REST", "runs a command on the host, which has to end with status 0",
      IN_BODY, BLOCK_NONE },
    { .name = NULL },
};
