/* One fuzz target per device class: the rig's bytecode against a device of class FUZZ_CLASS.
 * With clang, a libFuzzer target; with any compiler, a program that replays the files it is given.
 */
#include "rig/rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rig *rig = rig_new(device_class_find(FUZZ_CLASS), NULL);
    rig_run(rig, data, size);
    rig_disk_run(rig);
    if (!rig_round_trip(rig))
        g_error("%s: saved and loaded, its state is another", FUZZ_CLASS);
    rig_free(rig);
    return 0;
}
