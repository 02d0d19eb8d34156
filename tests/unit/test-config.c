/* The table of settings: what users write, what they are told when it is wrong, and the way to
 * hv-vmm and back as JSON. */
#include "machine/config.h"

#include "base/error.h"
#include "cli/conf.h"
#include "memory/guest.h"

#include <glib/gstdio.h>
#include <string.h>

static const struct setting *setting(const char *name)
{
    for (const struct setting *s = config_settings; s->name; s++)
        if (!strcmp(s->name, name))
            return s;
    g_error("no setting %s", name);
}

static bool set(struct config *config, const char *name, const char *value)
{
    g_autoptr(GError) error = NULL;
    bool ok = config_set(config, setting(name), value, &error);
    g_assert_true(ok == !error);
    if (error)
        g_test_message("%s", error->message);
    return ok;
}

static void good_values(void)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } sizes[] = {
        { "512", 512 * MIB }, { "512M", 512 * MIB }, { "512m", 512 * MIB },  { "512MB", 512 * MIB },
        { "1G", GIB },        { "4g", 4 * GIB },     { "1", MIB },           { "1024K", MIB },
        { "1048576K", GIB },  { "1T", 1024 * GIB },  { "0512M", 512 * MIB },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        g_autoptr(settings) config = config_new();
        g_assert_true(set(config, "memory", sizes[i].text));
        g_assert_cmpuint(config->memory, ==, sizes[i].bytes);
    }
    g_autoptr(settings) config = config_new();
    g_assert_true(set(config, "cpus", "64"));
    g_assert_cmpuint(config->cpus, ==, 64);
    g_assert_true(set(config, "cpus", "1")); /* the last one counts */
    g_assert_cmpuint(config->cpus, ==, 1);
    g_assert_true(set(config, "name", "first"));
    g_assert_true(set(config, "name", "second"));
    g_assert_cmpstr(config->name, ==, "second");
    g_assert_true(set(config, "headless", NULL));
    g_assert_true(config->headless);
    g_assert_true(set(config, "headless", "off")); /* as a description might have it */
    g_assert_false(config->headless);
    g_assert_true(set(config, "headless", "on"));
    g_assert_true(config->headless);
}

static void drives(void)
{
    g_autoptr(settings) config = config_new();
    g_assert_true(set(config, "disk", "a.img"));
    g_assert_true(set(config, "disk", "b=c.img,bus=ahci,format=raw,readonly"));
    g_assert_true(set(config, "cdrom", "d.iso"));
    g_assert_cmpuint(config->disks->len, ==, 2);
    const struct drive *a = g_ptr_array_index(config->disks, 0),
                       *b = g_ptr_array_index(config->disks, 1),
                       *d = g_ptr_array_index(config->cdroms, 0);
    g_assert_cmpstr(a->file, ==, "a.img");
    g_assert_null(a->bus); /* decided by what is on it */
    g_assert_cmpstr(b->bus, ==, "ahci");
    g_assert_null(a->format);
    g_assert_false(a->readonly || a->cd);
    g_assert_cmpstr(b->file, ==, "b=c.img");
    g_assert_cmpstr(b->format, ==, "raw");
    g_assert_true(b->readonly);
    g_assert_true(d->readonly && d->cd);
    /* What is none of its own keys is its controller's. */
    g_assert_true(set(config, "disk", "e,packed=on,bus=virtio,queues=2"));
    const struct drive *e = g_ptr_array_index(config->disks, 2);
    g_assert_cmpstr(e->options, ==, "packed=on,queues=2");
    g_assert_cmpstr(e->bus, ==, "virtio");
    g_assert_null(a->options);
    g_assert_true(set(config, "disk", "z,detect-zeroes=unmap"));
    const struct drive *z = g_ptr_array_index(config->disks, 3);
    g_assert_cmpstr(z->zeroes, ==, "unmap");
    g_assert_null(e->zeroes);
    g_assert_true(set(config, "floppy", "e.img,readonly"));
    const struct drive *f = g_ptr_array_index(config->floppies, 0);
    g_assert_cmpstr(f->bus, ==, "floppy");
    g_assert_true(f->readonly && !f->cd);
}

static void wrong_values(void)
{
    static const struct {
        const char *name, *value, *words; /* that the message has */
    } wrong[] = {
        { "memory", "0", "--memory 0: from 1M to 1048576M" },
        { "memory", "1023K", "from 1M to" },
        { "memory", "2T", "from 1M to" },
        { "memory", "", "a size such as 512M" },
        { "memory", "lots", "--memory lots: a size such as 512M or 4G" },
        { "memory", "-1", "a size" },
        { "memory", "+1", "a size" },
        { "memory", " 1", "a size" },
        { "memory", "1.5G", "a size" },
        { "memory", "0x100", "a size" },
        { "memory", "1GiB", "a size" },
        { "memory", "1 G", "a size" },
        { "memory", "512B", "a size" },
        { "memory", "512Mx", "a size" },
        { "memory", "18446744073709551617", "a size" }, /* 2^64 + 1 */
        { "memory", "17592186044416M", "a size" },      /* 2^64 bytes */
        { "memory", "99999999999999999999999G", "a size" },
        { "cpus", "0", "--cpus 0: from 1 to 64" },
        { "cpus", "65", "from 1 to 64" },
        { "cpus", "two", "--cpus two: a number is wanted" },
        { "cpus", "2M", "a number" },
        { "cpus", "99999999999999999999999", "from 1 to 64" },
        { "disk", "", "--disk: a file name is wanted" },
        { "disk", ",readonly", "--disk: a file name is wanted" },
        { "disk", "a,reedonly", "--disk: unknown key \"reedonly\"; did you mean \"readonly\"?" },
        { "disk", "a,buss=virtio", "unknown key \"buss\"; did you mean \"bus\"?" },
        { "disk", "a,=1", "unknown key \"\"" },
        { "cdrom", "a,queues=1", "--cdrom: unknown key \"queues\"" },
        { "disk", "a,", "unknown key \"\"" },
        { "disk", "a,bus", "--disk" },
        { "disk", "a,readonly=yes", "--disk: readonly takes no value" },
        { "disk", "a,detect-zeroes=yes", "\"off\", \"on\" or \"unmap\" is wanted" },
        { "disk", "a,detect-zeroes", "\"off\", \"on\" or \"unmap\" is wanted" },
        { "volatile", "foo", "--volatile foo: a number is wanted" },
        { "volatile", "0", "from 1 to 4294967295" },
        { "volatile", "4294967296", "from 1 to 4294967295" },
        { "cdrom", "a,detect-zeroes=on", "--cdrom: unknown key" },
        { "disk", "a,bus=ide", "bus=ide: \"ahci\", \"virtio\" or \"nvme\" is what there is" },
        { "disk", "a,bus=floppy", "there is --floppy FILE" },
        { "floppy", "a,bus=ahci", "bus=ahci: \"floppy\" is what there is" },
        { "cdrom", "a,bus=virtio", "bus=virtio: \"ahci\" is what there is" },
        { "disk", "a,format=qcow9", "format=qcow9: \"raw\"" },
        { "floppy", "a,size=1", "--floppy: unknown key \"size\"" },
        { "cdrom", "a,writable", "--cdrom: unknown key \"writable\"" },
        { "cdrom", "", "--cdrom: a file name is wanted" },
        { "headless", "maybe", "--headless maybe: on or off" },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_autoptr(settings) config = config_new();
        g_autoptr(GError) error = NULL;
        config->memory = config->cpus = 1;
        if (config_set(config, setting(wrong[i].name), wrong[i].value, &error))
            g_error("--%s \"%s\" is taken", wrong[i].name, wrong[i].value);
        g_assert_cmpint(hv_exit_status(error), ==, HV_USAGE);
        if (!strstr(error->message, wrong[i].words))
            g_error("--%s \"%s\": \"%s\"", wrong[i].name, wrong[i].value, error->message);
        g_assert_cmpuint(config->memory + config->cpus, ==, 2); /* nothing is half set */
    }
}

/* The table itself: each option once, limits that make sense, a help text of one line. */
static void table(void)
{
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
    for (const struct setting *s = config_settings; s->name; s++) {
        g_assert_true(g_hash_table_add(names, (void *)(uintptr_t)s->name));
        g_assert_nonnull(s->help);
        g_assert_null(strchr(s->help, '\n'));
        g_assert_true((s->kind == SETTING_BOOL) == !s->value);
        if (s->kind == SETTING_SIZE || s->kind == SETTING_UINT)
            g_assert_cmpuint(s->min, <, s->max);
    }
}

/* --- JSON ------------------------------------------------------------------------------------ */

static char *text_of(const struct config *config)
{
    json_t *json = config_to_json(config);
    char *text = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    return text;
}

static struct config *from_text(const char *text, GError **error)
{
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
    g_assert_nonnull(json);
    struct config *config = config_from_json(json, error);
    json_decref(json);
    return config;
}

static void round_trip(void)
{
    static const char *const values[][2] = {
        { "memory", "768M" },
        { "cpus", "3" },
        { "cpu", "host,-vmx" },
        { "disk", "a.img" },
        { "disk", "b,readonly,format=raw,packed=on" },
        { "cdrom", "\"q\\.iso" },
        { "boot", "cd,disk" },
        { "firmware", "bios" },
        { "kernel", "vmlinuz" },
        { "initrd", "one" },
        { "initrd", "two with arguments" },
        { "append", "quiet root=\"x\"" },
        { "multiboot", NULL },
        { "headless", NULL },
        { "serial", "stdio" },
        { "serial2", "second.log" },
        { "console", "virtio" },
        { "device", "debug-exit" },
        { "device", "serial,port=2" },
        { "name", "\xc3\xa4" },
        { "throwaway", NULL },
        { "volatile", "4294967295" },
        { "clock", "local" },
        { "hpet", NULL },
        { "cid", "77" },
        { "net", "user,restrict" },
        { "publish", "8080:80" },
        { "layout", "de(nodeadkeys)" },
        { "trace", "ports" },
    };
    g_autoptr(settings) config = config_new();
    for (size_t i = 0; i < G_N_ELEMENTS(values); i++)
        g_assert_true(set(config, values[i][0], values[i][1]));
    g_autofree char *first = text_of(config);
    g_autoptr(GError) error = NULL;
    g_autoptr(settings) copy = from_text(first, &error);
    g_assert_no_error(error);
    g_autofree char *second = text_of(copy);
    g_assert_cmpstr(first, ==, second);
    g_assert_cmpuint(copy->memory, ==, 768 * MIB);
    g_assert_cmpuint(copy->volatile_seed, ==, UINT32_MAX);
    g_assert_cmpuint(copy->disks->len, ==, 2);
    g_assert_cmpuint(copy->devices->len, ==, 2);
    g_assert_cmpstr(g_ptr_array_index(copy->initrds, 1), ==, "two with arguments");
    g_assert_true(((struct drive *)g_ptr_array_index(copy->cdroms, 0))->cd);
    const struct drive *b = g_ptr_array_index(copy->disks, 1);
    g_assert_true(b->readonly);
    g_assert_cmpstr(b->options, ==, "packed=on");
    g_assert_cmpstr(copy->clock, ==, "local");
    g_assert_true(copy->headless && copy->throwaway && copy->hpet);
    for (const struct setting *s = config_settings; s->name; s++) {
        g_autofree char *key = g_strdup_printf("\"%s\":", s->name);
        if (!strstr(first, key))
            g_error("the description lacks %s", s->name);
    }
}

/* File names are bytes: one that is no text must not vanish on the way, nor its drive. */
static void not_utf8(void)
{
    g_autoptr(settings) config = config_new();
    g_assert_true(set(config, "disk", "caf\xe9.img"));
    g_assert_true(set(config, "serial", "caf\xe9.log"));
    g_assert_true(set(config, "memory", "64M"));
    g_assert_true(set(config, "cpus", "1"));
    g_assert_true(set(config, "cid", "3"));
    g_autofree char *text = text_of(config);
    g_assert_nonnull(text);
    g_autoptr(settings) copy = from_text(text, NULL);
    g_assert_nonnull(copy);
    g_assert_cmpuint(copy->disks->len, ==, 1);
    g_assert_nonnull(copy->serial);
}

static void wrong_json(void)
{
    static const char *const wrong[][2] = {
        { "memory", "{\"memory\": 0}" },
        { "memory", "{\"memory\": -1}" },
        { "memory", "{\"memory\": \"64M\"}" },
        { "cpus", "{\"cpus\": 65}" },
        { "cpus", "{\"cpus\": 1.5}" },
        { "name", "{\"name\": 1}" },
        { "name", "{\"name\": null}" },
        { "headless", "{\"headless\": 1}" },
        { "disk", "{\"disk\": {}}" },
        { "disk", "{\"disk\": [1]}" },
        { "disk", "{\"disk\": [{\"file\": \"a\"}]}" },
        { "disk", "{\"disk\": [{\"file\": 1, \"bus\": \"ahci\", \"readonly\": true}]}" },
        { "cdrom", "{\"cdrom\": \"a\"}" },
        { "device", "{\"device\": \"a\"}" },
        { "device", "{\"device\": [\"a\", 1]}" },
        { "device", "{\"device\": [null]}" },
        { "description", "[]" },
        { "description", "\"x\"" },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_autoptr(GError) error = NULL;
        if (from_text(wrong[i][1], &error))
            g_error("%s is taken", wrong[i][1]);
        g_assert_cmpint(hv_exit_status(error), ==, HV_USAGE);
        if (!strstr(error->message, wrong[i][0]))
            g_error("%s: %s", wrong[i][1], error->message);
    }
    g_autoptr(GError) error = NULL;
    g_assert_null(config_from_json(NULL, &error));
    g_assert_cmpint(hv_exit_status(error), ==, HV_USAGE);
}

/* --- vm.conf --------------------------------------------------------------------------------- */

static struct config *parse(const char *text, GError **error)
{
    g_autoptr(settings) config = config_new();
    if (!conf_parse(config, text, strlen(text), "x/vm.conf", "/m", error))
        return NULL;
    return g_steal_pointer(&config);
}

static const struct drive *drive_at(const GPtrArray *drives, guint i)
{
    return g_ptr_array_index(drives, i);
}

static void conf_good(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(settings) config =
        parse("# a machine\n"
              "\n"
              "memory = 2G # enough\r\n"
              "\tcpus=2\n"
              "disk = disk.qcow2,bus=nvme,backing=base.img\n"
              "disk = \"/else where/b #1.img\"  # in quotes\n"
              "cdrom = my#1.iso\n"
              "floppy = none\n"
              "firmware = bios\n"
              "serial = log.txt\n"
              "net = user,model=e1000,pcap=p.pcap\n"
              "publish = 2222:22\n"
              "publish = 8080:80\n"
              "headless\n"
              "hpet = on\n"
              "throwaway = off # no\n"
              "append = console=ttyS0 root=/dev/sda1", /* no new line at its end */
              &error);
    g_assert_no_error(error);
    g_assert_cmpuint(config->memory, ==, 2 * GIB);
    g_assert_cmpuint(config->cpus, ==, 2);
    g_assert_cmpuint(config->disks->len, ==, 2);
    g_assert_cmpstr(drive_at(config->disks, 0)->file, ==, "/m/disk.qcow2");
    g_assert_cmpstr(drive_at(config->disks, 0)->bus, ==, "nvme");
    g_assert_cmpstr(g_ptr_array_index(drive_at(config->disks, 0)->backing, 0), ==, "/m/base.img");
    g_assert_cmpstr(drive_at(config->disks, 1)->file, ==, "/else where/b #1.img");
    g_assert_cmpstr(drive_at(config->cdroms, 0)->file, ==, "/m/my#1.iso");
    g_assert_cmpstr(drive_at(config->floppies, 0)->file, ==, "none");
    g_assert_cmpstr(config->firmware, ==, "bios");
    g_assert_cmpstr(config->serial, ==, "/m/log.txt");
    g_assert_cmpstr(config->net, ==, "user,model=e1000,pcap=/m/p.pcap");
    g_assert_cmpuint(config->publish->len, ==, 2);
    g_assert_true(config->headless && config->hpet && !config->throwaway);
    g_assert_cmpstr(config->append, ==, "console=ttyS0 root=/dev/sda1");
    /* The command line comes after, and is not relative to the directory. */
    g_assert_true(set(config, "memory", "64M"));
    g_assert_true(set(config, "disk", "own.img"));
    g_assert_cmpuint(config->memory, ==, 64 * MIB);
    g_assert_cmpstr(drive_at(config->disks, 2)->file, ==, "own.img");
}

static void conf_wrong(void)
{
    static const struct {
        const char *text, *words;
    } wrong[] = {
        { "memry = 1G", "x/vm.conf:1: there is no setting \"memry\"; did you mean \"memory\"?" },
        { "\n# c\n\ncpuss = 1\n", "x/vm.conf:4: there is no setting \"cpuss\"" },
        { "--memory = 1G", "there is no setting \"--memory\"" },
        { "image = a", "there is no setting \"image\"" },
        { "= 1G", "there is no setting \"\"" },
        { "memory", "x/vm.conf:1: memory wants a value: memory = SIZE" },
        { "memory =", "memory wants a value: SIZE" },
        { "memory = # 1G", "memory wants a value" },
        { "hpet =", "hpet wants a value (on or off), or none at all" },
        { "memory 1G", "x/vm.conf:1: memory: \"memory = VALUE\" is wanted" },
        { "memory = lots", "x/vm.conf:1: memory lots: a size such as" },
        { "cpus = 1\ncpus = 65", "x/vm.conf:2: cpus: line 1 has it already" },
        { "cpus = 65", "x/vm.conf:1: cpus 65: from 1 to 64" },
        { "disk = a,buss=nvme", "unknown key \"buss\"; did you mean \"bus\"?" },
        { "name = \"a", "a value in quotes ends with a quote" },
        { "name = \"a\" b", "a value in quotes ends with a quote" },
        { "name = a\033[2J", "control character" },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_autoptr(GError) error = NULL;
        if (parse(wrong[i].text, &error))
            g_error("\"%s\" is taken", wrong[i].text);
        g_assert_cmpint(hv_exit_status(error), ==, HV_USAGE);
        if (!strstr(error->message, wrong[i].words))
            g_error("%s: %s", wrong[i].text, error->message);
    }
    g_autoptr(GError) error = NULL;
    g_autoptr(settings) config = config_new();
    g_assert_false(conf_parse(config, "hpet\0= on", 9, "x/vm.conf", "/m", &error));
    g_assert_nonnull(strstr(error->message, "no text"));
}

/* A line for each setting there is: paths are the only ones that change. */
static void conf_all_settings(void)
{
    for (const struct setting *s = config_settings; s->name; s++) {
        g_autoptr(GError) error = NULL;
        const char *value = s->kind == SETTING_SIZE   ? "64M"
                            : s->kind == SETTING_BOOL ? "on"
                            : s->kind == SETTING_UINT ? "3"
                                                      : "/x";
        g_autofree char *text = g_strdup_printf("%s = %s\n", s->name, value);
        g_autoptr(settings) config = parse(text, &error);
        g_assert_nonnull(config);
        g_assert_no_error(error);
    }
}

static void conf_folders(void)
{
    g_autofree char *folder = g_dir_make_tmp("hv-conf-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(folder, conf_name, NULL);
    g_autofree char *large = g_strnfill(70000, '#');
    g_autoptr(settings) config = config_new();
    g_autoptr(GError) error = NULL;
    g_assert_false(conf_load(config, folder, &error));
    g_assert_nonnull(strstr(error->message, "without vm.conf"));
    g_clear_error(&error);
    g_assert_true(g_file_set_contents(path, "disk = a.img\n", -1, NULL));
    g_assert_true(conf_load(config, folder, &error));
    g_autofree char *disk = g_build_filename(folder, "a.img", NULL);
    g_assert_cmpstr(drive_at(config->disks, 0)->file, ==, disk);
    g_assert_true(g_file_set_contents(path, large, -1, NULL));
    g_assert_false(conf_load(config, folder, &error));
    g_assert_nonnull(strstr(error->message, "at most 64 KiB"));
    g_clear_error(&error);
    g_remove(path);
    g_assert_cmpint(g_mkdir(path, 0700), ==, 0);
    g_assert_false(conf_load(config, folder, &error));
    g_assert_nonnull(strstr(error->message, "a text file"));
    g_rmdir(path);
    g_rmdir(folder);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/config/good-values", good_values);
    g_test_add_func("/config/drives", drives);
    g_test_add_func("/config/wrong-values", wrong_values);
    g_test_add_func("/config/table", table);
    g_test_add_func("/config/round-trip", round_trip);
    g_test_add_func("/config/not-utf8", not_utf8);
    g_test_add_func("/config/wrong-json", wrong_json);
    g_test_add_func("/conf/good", conf_good);
    g_test_add_func("/conf/wrong", conf_wrong);
    g_test_add_func("/conf/all-settings", conf_all_settings);
    g_test_add_func("/conf/folders", conf_folders);
    return g_test_run();
}
