/* The table behind the device fw-cfg; see fw-cfg.h. The machine's own thread fills it. */
#include "bus/fw-cfg.h"

#include <string.h>

enum {
    FEATURE_TRADITIONAL = 1,
    FEATURE_DMA = 2,
    ENTRY_SIZE = 64, /* of the directory */
};

struct file {
    GBytes *data;
    char name[FW_CFG_NAME_MAX + 1];
};

struct fw_cfg {
    GHashTable *items; /* key -> GBytes, all but the files */
    GArray *files;     /* of struct file, sorted by name; key FW_CFG_FILE_FIRST is the first */
};

/* A directory entry as the guest reads it; its numbers are big-endian. */
struct entry {
    uint32_t size;
    uint16_t key, reserved;
    char name[FW_CFG_NAME_MAX + 1];
};
G_STATIC_ASSERT(sizeof(struct entry) == ENTRY_SIZE);

static void file_clear(void *file)
{
    g_bytes_unref(((struct file *)file)->data);
}

static const struct file *file_at(const struct fw_cfg *fw, guint index)
{
    return &g_array_index(fw->files, struct file, index);
}

static void list_files(struct fw_cfg *fw)
{
    g_autoptr(GByteArray) directory = g_byte_array_new();
    uint32_t count = GUINT32_TO_BE(fw->files->len);
    g_byte_array_append(directory, (const uint8_t *)&count, sizeof count);
    for (guint i = 0; i < fw->files->len; i++) {
        const struct file *file = file_at(fw, i);
        struct entry entry = {
            .size = GUINT32_TO_BE((uint32_t)g_bytes_get_size(file->data)),
            .key = GUINT16_TO_BE((uint16_t)(FW_CFG_FILE_FIRST + i)),
        };
        memcpy(entry.name, file->name, sizeof entry.name);
        g_byte_array_append(directory, (const uint8_t *)&entry, sizeof entry);
    }
    fw_cfg_add(fw, FW_CFG_FILE_DIR, g_byte_array_free_to_bytes(g_steal_pointer(&directory)));
}

struct fw_cfg *fw_cfg_new(void)
{
    struct fw_cfg *fw = g_new0(struct fw_cfg, 1);
    fw->items = g_hash_table_new_full(NULL, NULL, NULL, (GDestroyNotify)g_bytes_unref);
    fw->files = g_array_new(FALSE, TRUE, sizeof(struct file));
    g_array_set_clear_func(fw->files, file_clear);
    fw_cfg_add(fw, FW_CFG_SIGNATURE, g_bytes_new_static("QEMU", 4));
    fw_cfg_add_number(fw, FW_CFG_ID, FEATURE_TRADITIONAL | FEATURE_DMA, 4);
    list_files(fw);
    return fw;
}

void fw_cfg_free(struct fw_cfg *fw)
{
    if (!fw)
        return;
    g_hash_table_unref(fw->items);
    g_array_unref(fw->files);
    g_free(fw);
}

void fw_cfg_add(struct fw_cfg *fw, uint16_t key, GBytes *data)
{
    g_hash_table_insert(fw->items, GUINT_TO_POINTER(key), data);
}

void fw_cfg_add_number(struct fw_cfg *fw, uint16_t key, uint64_t value, unsigned width)
{
    uint64_t little = GUINT64_TO_LE(value);
    fw_cfg_add(fw, key, g_bytes_new(&little, width));
}

/* Where the name is, or belongs. */
static guint place(const struct fw_cfg *fw, const char *name, bool *found)
{
    guint i = 0;
    int order = 1;
    while (i < fw->files->len && (order = strcmp(file_at(fw, i)->name, name)) < 0)
        i++;
    *found = i < fw->files->len && order == 0;
    return i;
}

bool fw_cfg_add_file(struct fw_cfg *fw, const char *name, GBytes *data)
{
    struct file file = { .data = data };
    bool found;
    guint at = place(fw, name, &found);
    if (!name[0] || strlen(name) > FW_CFG_NAME_MAX || !g_str_is_ascii(name) ||
        g_bytes_get_size(data) > UINT32_MAX || (!found && fw->files->len == FW_CFG_FILES_MAX)) {
        g_bytes_unref(data);
        return false;
    }
    if (found)
        g_array_remove_index(fw->files, at);
    g_strlcpy(file.name, name, sizeof file.name);
    g_array_insert_val(fw->files, at, file);
    list_files(fw);
    return true;
}

GBytes *fw_cfg_find(const struct fw_cfg *fw, uint16_t key)
{
    guint file = (guint)key - FW_CFG_FILE_FIRST;
    if (key >= FW_CFG_FILE_FIRST && file < fw->files->len)
        return file_at(fw, file)->data;
    return g_hash_table_lookup(fw->items, GUINT_TO_POINTER(key));
}

GBytes *fw_cfg_find_file(const struct fw_cfg *fw, const char *name)
{
    bool found;
    guint at = place(fw, name, &found);
    return found ? file_at(fw, at)->data : NULL;
}
