/* Runs a fuzz target over the files of the folders it is given: the corpus as a test (TAP). */
#include <glib.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int argc, char **argv)
{
    int count = 0;
    for (int i = 1; i < argc; i++) {
        g_autoptr(GDir) dir = g_dir_open(argv[i], 0, NULL);
        const char *name;
        while (dir && (name = g_dir_read_name(dir))) {
            g_autofree char *path = g_build_filename(argv[i], name, NULL);
            g_autofree char *data = NULL;
            gsize size;
            if (!g_file_get_contents(path, &data, &size, NULL))
                continue;
            LLVMFuzzerTestOneInput((const uint8_t *)data, size);
            g_print("ok %d %s\n", ++count, name);
        }
    }
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    g_print("ok %d the empty input\n1..%d\n", count + 1, count + 1);
    return 0;
}
