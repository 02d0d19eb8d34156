/* Machines from command lines; see vm-words.h. */
#include "test/vm-words.h"

#include "base/error.h"
#include "machine/config.h"

#include <string.h>

GPtrArray *vm_words_new(void)
{
    return g_ptr_array_new_with_free_func(vm_setting_free);
}

void vm_words_add(GPtrArray *list, const char *key, const char *value)
{
    struct vm_setting *setting = g_new0(struct vm_setting, 1);
    setting->key = g_intern_string(key);
    setting->value = g_strdup(value);
    g_ptr_array_add(list, setting);
}

static bool has_image(const GPtrArray *list)
{
    for (guint i = 0; i < list->len; i++)
        if (!strcmp(((const struct vm_setting *)g_ptr_array_index(list, i))->key, "image"))
            return true;
    return false;
}

bool vm_words_take(GPtrArray *list, char **argv, int *i, int end, GError **error)
{
    static const char *const own[] = { "name", "serial", "headless", "dry-run", NULL };
    const char *word = argv[*i], *equals = strchr(word, '='), *value = equals ? equals + 1 : NULL;
    if (word[0] != '-') {
        if (has_image(list))
            return hv_fail(error, HV_USAGE, "one IMAGE is enough, \"%s\" is too much", word);
        vm_words_add(list, "image", word);
        return true;
    }
    if (word[1] != '-')
        return hv_fail(error, HV_USAGE, "%s: here options are written out", word);
    g_autofree char *name = g_strndup(word + 2, strcspn(word + 2, "="));
    const struct setting *s = config_settings;
    while (s->name && strcmp(s->name, name))
        s++;
    if (!s->name || g_strv_contains(own, name))
        return hv_fail(error, HV_USAGE, "--%s: %s", name,
                       s->name ? "this machine has its own"
                               : "there is no such option; see hv run --help");
    if (!value && s->kind != SETTING_BOOL) {
        if (*i + 1 >= end)
            return hv_fail(error, HV_USAGE, "--%s wants a value: %s", name, s->value);
        value = argv[++*i];
    }
    vm_words_add(list, s->name, value);
    return true;
}
