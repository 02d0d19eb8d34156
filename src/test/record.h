/* hv test --record: a draft of a script from what is done in a window. */
#pragma once

/* FILE [options of hv run] IMAGE; hv's status. */
int record_test(int argc, char **argv);
