/* The language of hv test: what scripts mean, what is said about wrong ones, and what the runner
 * needs to judge a guest: crashes, near misses. */
#include "test/crash.h"
#include "test/nearest.h"
#include "test/patience.h"
#include "test/result.h"
#include "test/script.h"

#include <glib/gstdio.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

static char *folder;

static char *write_file(const char *name, const char *text)
{
    char *path = g_build_filename(folder, name, NULL);
    g_assert_true(g_file_set_contents(path, text, -1, NULL));
    return path;
}

struct parsed {
    struct source *source;
    struct script *script;
    char *path;
};

static struct parsed parse(const char *text, const char *key, const char *value)
{
    g_autoptr(GHashTable) values = g_hash_table_new(g_str_hash, g_str_equal);
    struct parsed parsed = { .path = write_file("t.hvt", text) };
    if (key)
        g_hash_table_insert(values, (char *)(uintptr_t)key, (char *)(uintptr_t)value);
    parsed.source = source_read(parsed.path);
    parsed.script = script_parse(parsed.source, values, "/here");
    return parsed;
}

static void parsed_free(struct parsed *parsed)
{
    script_free(parsed->script);
    source_free(parsed->source);
    g_unlink(parsed->path);
    g_free(parsed->path);
}

static const struct command *command(const struct parsed *parsed, unsigned i)
{
    g_assert_cmpuint(i, <, parsed->script->commands->len);
    return g_ptr_array_index(parsed->script->commands, i);
}

/* One word decides which way to go, and says what the numbers behind it are. */
static void faults(void)
{
    struct parsed p = parse("vm\n"
                            "  image x\n"
                            "disk full\n"
                            "disk 2 error 7 to 9 read\n"
                            "disk slow 10s\n"
                            "net loss 5%\n"
                            "net delay 100ms\n",
                            NULL, NULL);
    g_assert_cmpuint(p.script->problems->len, ==, 0);
    g_assert_true(command_has(command(&p, 0), "full"));
    g_assert_null(command_value(command(&p, 0), "COUNT", 0));
    const struct command *bad = command(&p, 1);
    g_assert_cmpint(command_value(bad, "COUNT", 0)->number, ==, 2);
    g_assert_cmpint(command_value(bad, "error", 0)->number, ==, 7);
    g_assert_cmpint(command_value(bad, "to", 0)->number, ==, 9);
    g_assert_true(command_has(bad, "read"));
    g_assert_false(command_has(bad, "write"));
    g_assert_cmpint(command_value(command(&p, 2), "slow", 0)->number, ==, 10 * G_USEC_PER_SEC);
    g_assert_cmpint(command_value(command(&p, 3), "loss", 0)->number, ==, 5);
    g_assert_cmpint(command_value(command(&p, 4), "delay", 0)->number, ==, 100000);
    parsed_free(&p);
}

static void a_script(void)
{
    struct parsed p = parse("# a comment\n"
                            "test \"a \\\"title\\\"\"\n"
                            "vm\n"
                            "  disk /x/y.img,bus=ahci   # the disk\n"
                            "  memory 2G\n"
                            "  keep\n"
                            "\n"
                            "boot\n"
                            "  see serial \"GNU GRUB\" /v2\\.[0-9]+\\/x/i within 10s\n"
                            "  key enter ctrl+alt+del\n"
                            "step \"two\"\n"
                            "  type \"root\\n\" secret:PW\n"
                            "  soft run \"uname\" -> /Linux/ within 2m bug=deb#1\n"
                            "  after 500ms power cut\n"
                            "  guest sh -c 'it''s' | wc -l &\n"
                            "  repeat 3\n"
                            "    not see \"x\"\n",
                            NULL, NULL);
    g_assert_cmpuint(p.script->problems->len, ==, 0);
    g_assert_cmpstr(p.script->title, ==, "a \"title\"");
    const struct vm *vm = g_ptr_array_index(p.script->vms, 0);
    const struct vm_setting *disk = g_ptr_array_index(vm->settings, 0);
    g_assert_cmpstr(vm->name, ==, "vm");
    g_assert_true(vm->keep);
    g_assert_cmpuint(vm->settings->len, ==, 2);
    g_assert_cmpstr(disk->value, ==, "/x/y.img,bus=ahci");

    const struct command *boot = command(&p, 0);
    const struct command *see = g_ptr_array_index(boot->block, 0);
    g_assert_cmpint(see->verb->id, ==, VERB_SEE);
    g_assert_true(command_has(see, "serial"));
    g_assert_false(command_has(see, "screen"));
    g_assert_cmpstr(command_value(see, "TEXT", 0)->text, ==, "GNU GRUB");
    g_assert_true(g_regex_match(command_value(see, "TEXT", 1)->regex, "V2.06/X", 0, NULL));
    g_assert_null(command_value(see, "TEXT", 2));
    g_assert_cmpint(command_value(see, "within", 0)->number, ==, 10 * G_USEC_PER_SEC);
    g_assert_cmpuint(see->place.line, ==, 9);
    g_assert_cmpuint(see->place.column, ==, 3);
    const struct command *key = g_ptr_array_index(boot->block, 1);
    g_assert_cmpstr(command_value(key, "WORD", 1)->text, ==, "ctrl+alt+del");

    const struct command *step = command(&p, 1);
    const struct command *type = g_ptr_array_index(step->block, 0);
    g_assert_cmpstr(command_value(type, "PIECE", 0)->text, ==, "root\n");
    g_assert_cmpint(command_value(type, "PIECE", 1)->kind, ==, TOKEN_SECRET);
    const struct command *run = g_ptr_array_index(step->block, 1);
    g_assert_cmpstr(run->bug, ==, "deb#1");
    g_assert_cmpstr(command_value(run, "->", 0)->text, ==, "Linux");
    const struct command *cut = g_ptr_array_index(step->block, 2);
    g_assert_cmpint(cut->verb->id, ==, VERB_POWER_CUT);
    g_assert_cmpint(cut->after, ==, 500000);
    const struct command *guest = g_ptr_array_index(step->block, 3);
    g_assert_cmpstr(guest->rest, ==, "sh -c 'it''s' | wc -l");
    g_assert_true(guest->background);
    const struct command *repeat = g_ptr_array_index(step->block, 4);
    g_assert_cmpint(command_value(repeat, "COUNT", 0)->number, ==, 3);
    g_assert_cmpuint(repeat->block->len, ==, 1);
    parsed_free(&p);
}

static void pointer(void)
{
    struct parsed p = parse("vm\nboot\n  click double at 400,300\n  click right \"OK\" within 3s\n"
                            "  move /Fi.e/\n  scroll down 3\n  set cd=x.iso\n"
                            "  see image a.png similarity 90% ignore 1,2 to 3,4 ignore 5,6 to 7,8\n"
                            "  click image a.png within 5s\n",
                            NULL, NULL);
    g_assert_cmpuint(p.script->problems->len, ==, 0);
    GPtrArray *block = command(&p, 0)->block;
    const struct command *at = g_ptr_array_index(block, 0), *text = g_ptr_array_index(block, 1);
    g_assert_true(command_has(at, "double"));
    g_assert_cmpint(command_value(at, "at", 0)->number, ==, 400);
    g_assert_cmpint(command_value(at, "at", 0)->second, ==, 300);
    g_assert_true(command_has(text, "right"));
    g_assert_null(command_value(text, "at", 0));
    g_assert_cmpstr(command_value(text, "TEXT", 0)->text, ==, "OK");
    const struct command *image = g_ptr_array_index(block, 5);
    g_assert_cmpint(image->verb->id, ==, VERB_SEE_IMAGE);
    g_assert_cmpint(command_value(image, "similarity", 0)->number, ==, 90);
    g_assert_cmpint(command_value(image, "ignore", 1)->second, ==, 6);
    g_assert_cmpint(command_value(image, "to", 1)->number, ==, 7);
    const struct command *picture = g_ptr_array_index(block, 6);
    g_assert_cmpstr(command_value(picture, "image", 0)->text, ==, "a.png");
    const struct command *scroll = g_ptr_array_index(block, 3);
    g_assert_cmpint(command_value(scroll, "COUNT", 0)->number, ==, 3);
    parsed_free(&p);
}

/* A machine that is said counts for the lines below, too; with a byte order mark, as editors of
 * other systems write it. */
static void machines(void)
{
    struct parsed p = parse(
        "\xef\xbb\xbfvm a\r\nvm b\non b boot\n  pause\n  on a pause\nboot\n  pause\n", NULL, NULL);
    g_assert_cmpuint(p.script->problems->len, ==, 0);
    const struct command *first = command(&p, 0), *second = command(&p, 1);
    const struct command *below = g_ptr_array_index(first->block, 0);
    const struct command *other = g_ptr_array_index(first->block, 1);
    g_assert_cmpstr(below->machine, ==, "b");
    g_assert_cmpstr(other->machine, ==, "a");
    g_assert_null(((struct command *)g_ptr_array_index(second->block, 0))->machine);
    parsed_free(&p);
}

/* Each wrong script, and the one thing that is said: line, column, and what is wrong. */
static void wrong_scripts(void)
{
    static const struct {
        const char *text, *says;
    } rows[] = {
        { "vm\nbot\n", ":2:1: \"bot\" is no verb; did you mean \"boot\"?" },
        { "vm\n  memry 2G\n", ":2:3: \"memry\" is no setting; did you mean \"memory\"?" },
        { "vm\n  memory\n", ":2:3: it wants a value" },
        { "vm\n  keep\n  hpet on\n", ":3:3: it takes no value" },
        { "vm\nstep \"x\"\n  see\n", ":3:6: behind \"see\", screen, serial, prompt or "
                                     "\"text\" or /pattern/ is wanted" },
        { "vm\nstep \"x\"\n  see \"a\" witin 2s\n", ":3:11: \"witin\": did you mean \"within\"?" },
        { "vm\nstep \"x\"\n  see \"a\" within 2\n",
          ":3:18: \"2\": a time, such as 500ms, 10s or 2m is wanted" },
        { "vm\ncrash within 2s\n", ":2:7: \"within\": \"text\" or /pattern/ is wanted" },
        { "vm\nstep \"x\"\n  still 2s 3s\n", ":3:12: \"3s\": within is wanted" },
        { "vm\nstep \"x\"\n  type \"a\n", ":3:8: the string has no end: \" is missing" },
        { "vm\nstep \"x\"\n  type \"\\q\"\n",
          ":3:8: \\q means nothing in a string: \\n, \\t, \\e, \\b, \\\", \\\\, \\xHH and \\uHHHH "
          "are known" },
        { "vm\nstep \"x\"\n", ":2:1: what belongs to it is missing: lines indented by two spaces "
                              "more" },
        { "vm\nstep \"x\"\n  pause\n    resume\n",
          ":4:5: it is indented by 4 spaces, and 2 are the most that can be here" },
        { "vm\n    image x\n",
          ":2:5: it is indented by 4 spaces, and 2 are the most that can be here" },
        { "vm\nstep \"x\"\n\tpause\n", ":3:1: a tab: lines are indented by two spaces a level" },
        { "vm\nstep \"x\"\n  vm\n", ":3:3: that verb cannot stand here" },
        { "vm a\nvm a\n", ":2:1: there is a machine \"a\" already: vm NAME" },
        { "vm a\non a include b.hvt\n",
          ":2:6: that verb stands alone: a step may have a machine, on NAME step" },
        { "vm\nnet loss 101%\n", ":2:10: \"101%\": a percentage, such as 5% is wanted" },
        { "vm\ndisk eror 5\n", ":2:6: \"eror\": did you mean \"error\"?" },
        { "vm\ndisk 1 error 5 to\n", ":2:18: behind \"disk\", a number is wanted" },
        { "vm\non b pause\n", ":2:1: there is no machine \"b\"" },
        { "test \"x\"\n", ":1:1: there is no machine: a line \"vm\" is missing" },
        { "vm\n  image x\nmatrix\n  folder = a, b\n",
          ":4:3: folder: it is a folder of the run's own, and hv test makes it" },
        { "vm\n  image ${iso}\n", ":2:9: ${iso} has no value, from the matrix or --set" },
        { "vm\nwatch linus\n", ":2:7: \"linus\": linux, warn, boot or none is wanted" },
        { "vm\nboot\n  mark up\nrestore op\n",
          ":4:9: there is no mark \"op\" above; did you mean \"up\"?" },
        { "vm\nrestore up\nmark up\n", ":2:9: there is no mark \"up\" above" },
        { "vm\nfrom up\n", ":2:6: there is no mark \"up\" above" },
        { "vm\nmark up\nmark up\n", ":3:6: there is a mark \"up\" already" },
        { "vm\nrepeat 2\n  mark up\n", ":3:3: a mark is one moment: it cannot stand in a repeat" },
        { "vm b\n  keep\nmark up\nrestore up\n",
          ":4:1: the machine \"b\" has keep: what it wrote cannot be taken back" },
        { "vm\nmark up\non vm restore up\n", ":3:1: all machines go back: no \"on vm\"" },
        { "vm\nfrom none.hvt up\n", "none.hvt: No such file or directory" },
        { "vm\nstep \"x\"\n  from a.hvt up\n", ":3:3: that verb cannot stand here" },
        { "vm\n  sha256 12\n", ":2:3: sha256: 64 digits of a sum are wanted, as sha256sum prints "
                               "them" },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        struct parsed p = parse(rows[i].text, NULL, NULL);
        g_assert_cmpuint(p.script->problems->len, >=, 1);
        const char *problem = g_ptr_array_index(p.script->problems, 0);
        if (!g_str_has_suffix(problem, rows[i].says))
            g_error("%s\nsays     %s\nand not  %s", rows[i].text, problem, rows[i].says);
        parsed_free(&p);
    }
}

static void matrix_and_values(void)
{
    struct parsed p = parse(
        "vm\n  disk a.img,bus=${bus}\nmatrix\n  bus = ahci, nvme\n  bus = virtio\n", "bus", "nvme");
    g_assert_cmpuint(p.script->problems->len, ==, 0);
    const struct vm *vm = g_ptr_array_index(p.script->vms, 0);
    const struct vm_setting *disk = g_ptr_array_index(vm->settings, 0);
    g_assert_cmpstr(disk->value, ==, "a.img,bus=nvme");
    const struct matrix_key *key = g_ptr_array_index(p.source->keys, 0);
    g_assert_cmpstr(key->name, ==, "bus");
    g_assert_cmpuint(key->values->len, ==, 3);
    g_assert_cmpstr(g_ptr_array_index(key->values, 0), ==, "ahci");
    g_assert_cmpstr(g_ptr_array_index(key->values, 2), ==, "virtio");
    parsed_free(&p);
}

/* The whole command is soft, or one of the texts that it may show. */
static void soft_commands(void)
{
    struct parsed p = parse("vm\n  image x\nsoft see \"a\" bug=deb#1\nsoft see \"a\"\n"
                            "run \"b\" -> \"c\" or soft \"d\" within 2m bug=deb#2\n"
                            "run \"b\" -> \"soft\"\n",
                            NULL, NULL);
    g_assert_cmpuint(p.script->problems->len, ==, 0);
    g_assert_true(command(&p, 0)->soft && command(&p, 1)->soft);
    g_assert_cmpstr(command(&p, 0)->bug, ==, "deb#1");
    g_assert_null(command(&p, 1)->bug);
    g_assert_false(command(&p, 2)->soft || command(&p, 3)->soft);
    g_assert_cmpstr(command(&p, 2)->bug, ==, "deb#2");
    g_assert_cmpstr(command_value(command(&p, 2), "->", 0)->text, ==, "c");
    g_assert_cmpstr(command_value(command(&p, 2), "soft", 0)->text, ==, "d");
    g_assert_null(command_value(command(&p, 3), "soft", 0));
    parsed_free(&p);
}

static void a_folder(void)
{
    struct parsed p = parse("vm\n  disk ${folder}/a.img\nhost ls ${folder}\n", NULL, NULL);
    const struct vm *vm = g_ptr_array_index(p.script->vms, 0);
    const struct vm_setting *disk = g_ptr_array_index(vm->settings, 0);
    g_assert_cmpuint(p.script->problems->len, ==, 0);
    g_assert_cmpstr(disk->value, ==, "/here/a.img");
    g_assert_cmpstr(command(&p, 0)->rest, ==, "ls /here");
    parsed_free(&p);
}

static void includes(void)
{
    g_autofree char *other = write_file("login.hvt", "type \"root\\n\"\nbad\n");
    g_autofree char *loop = write_file("loop.hvt", "include loop.hvt\n");
    struct parsed p = parse("vm\nstep \"x\"\n  include login.hvt\n", NULL, NULL);
    const struct command *type = g_ptr_array_index(command(&p, 0)->block, 0);
    g_assert_cmpint(type->verb->id, ==, VERB_TYPE);
    g_assert_cmpuint(p.script->problems->len, ==, 1);
    g_assert_nonnull(strstr(g_ptr_array_index(p.script->problems, 0), "login.hvt:2:1: \"bad\""));
    parsed_free(&p);
    p = parse("include loop.hvt\n", NULL, NULL);
    g_assert_nonnull(strstr(g_ptr_array_index(p.script->problems, 0), "include each other"));
    parsed_free(&p);
    p = parse("include none.hvt\n", NULL, NULL);
    g_assert_nonnull(strstr(g_ptr_array_index(p.script->problems, 0), "No such file"));
    parsed_free(&p);
    /* Options for a machine of the included file; two such files cannot have the same. */
    g_autofree char *machine = write_file("vm.hvt", "vm\n  image x\n  keep\n");
    p = parse("vm\n  cpus 2\ninclude vm.hvt\n", NULL, NULL);
    g_assert_cmpuint(p.script->problems->len, ==, 0);
    g_assert_cmpuint(p.script->vms->len, ==, 1);
    const struct vm *vm = g_ptr_array_index(p.script->vms, 0);
    g_assert_cmpuint(vm->settings->len, ==, 2);
    g_assert_true(vm->keep);
    parsed_free(&p);
    p = parse("include vm.hvt\ninclude vm.hvt\n", NULL, NULL);
    g_assert_nonnull(strstr(g_ptr_array_index(p.script->problems, 0), "a machine \"vm\" already"));
    parsed_free(&p);
    g_unlink(other);
    g_unlink(loop);
    g_unlink(machine);
}

/* What leads to a mark: on from the last one that was gone back to before it. */
static void marks(void)
{
    g_autofree char *other = write_file("base.hvt", "test \"base\"\nvm\nboot\n  mark up\npause\n");
    struct parsed p = parse("test \"this\"\nfrom base.hvt up\nstep \"x\"\n  mark a\n  type \"1\"\n"
                            "  restore a\n  mark b\n  restore b\n",
                            NULL, NULL);
    g_assert_cmpuint(p.script->problems->len, ==, 0);
    g_assert_cmpstr(p.script->title, ==, "this");
    g_assert_cmpuint(p.script->vms->len, ==, 1);
    g_assert_cmpint(command(&p, 2)->verb->id, ==, VERB_FROM);
    const struct command *up = script_mark(p.script, "up");
    g_assert_true(up == g_ptr_array_index(command(&p, 0)->block, 0));
    g_assert_null(script_restored(p.script, up));
    g_assert_true(script_restored(p.script, script_mark(p.script, "a")) == command(&p, 2));
    const struct command *back = script_restored(p.script, script_mark(p.script, "b"));
    g_assert_cmpint(back->verb->id, ==, VERB_RESTORE);
    g_assert_cmpstr(command_mark(back)->text, ==, "a");
    g_assert_null(script_mark(p.script, "c"));
    parsed_free(&p);
    g_unlink(other);
}

/* Any cut of a script is told to be wrong or is right, and nothing worse. */
static void cut_scripts(void)
{
    const char text[] = "test \"x\"\nvm\n  disk a\nboot\n  see \"a\\u00e9\" /b/i within 1s\n"
                        "  soft on vm after 1s run \"c\" -> \"d\" bug=1\n";
    for (size_t length = 0; length < sizeof text; length++) {
        g_autofree char *cut = g_strndup(text, length);
        struct parsed p = parse(cut, NULL, NULL);
        parsed_free(&p);
    }
}

static void crashes(void)
{
    unsigned set;
    g_assert_true(crash_named("linux", &set));
    g_assert_false(crash_named("windows", &set));
    g_autofree char *panic = crash_find("a\n[1.0] Kernel panic - not syncing: VFS\nb\n", set);
    g_assert_cmpstr(panic, ==, "[1.0] Kernel panic - not syncing: VFS");
    g_assert_null(crash_find("WARNING: CPU: 0 PID: 1 at x\n", set));
    g_autofree char *root =
        crash_find("ALERT!  /dev/vdz does not exist.  Dropping to a shell!\n", set);
    g_assert_nonnull(root);
    g_assert_true(crash_named("warn", &set));
    g_autofree char *warning = crash_find("WARNING: CPU: 0 PID: 1 at x\n", set);
    g_assert_nonnull(warning);
    g_assert_true(crash_named("none", &set));
    g_assert_null(crash_find("Kernel panic - not syncing\n", set));
}

static void near_misses(void)
{
    g_autofree char *part = NULL, *none = NULL;
    g_assert_cmpint(nearest_part("one\nDebian-user here\n", "Debian user", &part), ==, 1);
    g_assert_cmpstr(part, ==, "Debian-user");
    g_assert_cmpint(nearest_part("xyz\n", "Debian user", &none), ==, -1);
    g_assert_null(none);
}

/* What a test's process says of a step is what the other one hears. */
static void results_as_json(void)
{
    static const char *const wrong[] = {
        "",
        "{",
        "[]",
        "{\"title\":\"x\"}",
        ("{\"title\":\"x\",\"outcome\":4,\"began\":0,\"wall\":0,\"busy\":0,"
         "\"moments\":[]}"),
        ("{\"title\":\"x\",\"outcome\":0,\"began\":0,\"wall\":0,\"busy\":0,"
         "\"moments\":[[9,0,\"\"]]}"),
    };
    struct result *result = result_new("a \"step\" #1");
    result->outcome = OUTCOME_SOFT;
    result->message = g_strdup("why\nnot");
    result->wall = G_MAXINT64;
    result->began = 5;
    result_add(result, MOMENT_NOTE, 7, g_strdup("\xc3\xa4"));
    result_add(result, MOMENT_SERIAL, 8, g_strdup(""));
    g_autofree char *line = result_to_json(result);
    g_assert_cmpint(strcspn(line, "\n"), ==, strlen(line) - 1);
    struct result *other = result_from_json(line);
    g_autofree char *again = result_to_json(other);
    g_assert_cmpstr(again, ==, line);
    g_assert_cmpstr(other->message, ==, "why\nnot");
    g_assert_cmpuint(other->moments->len, ==, 2);
    const struct moment *moment = g_ptr_array_index(other->moments, 0);
    g_assert_cmpstr(moment->text, ==, "\xc3\xa4");
    g_assert_cmpint(moment->at, ==, 7);
    result_free(result);
    result_free(other);
    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++)
        g_assert_null(result_from_json(wrong[i]));
}

/* --- time ------------------------------------------------------------------------------------ */

static void *burn(void *data)
{
    while (!g_atomic_int_get((gint *)data)) {
    }
    return NULL;
}

/* What a vCPU waited for a processor that others had does not count, and what other waits have
 * found of that neither; the clock's own limit stays. */
static void guest_time(void)
{
    struct patience patience;
    cpu_set_t before, one;
    gint done = 0;
    g_assert_no_errno(sched_getaffinity(0, sizeof before, &before));
    int cpu = 0;
    while (!CPU_ISSET(cpu, &before))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    g_assert_no_errno(sched_setaffinity(0, sizeof one, &one));
    GThread *other = g_thread_new("other", burn, &done), *vcpu = g_thread_new("vcpu0", burn, &done);
    patience_start(&patience, getpid(), 300000);
    g_assert_cmpint(patience_left(&patience), <=, 300000);
    /* The kernel counts a wait at its end, which may be long in coming when others run, too. */
    for (unsigned i = 0; i < 1000 && patience_busy(&patience) <= 20000; i++)
        g_usleep(10000);
    g_assert_cmpint(patience_busy(&patience), >, 20000);
    g_assert_cmpint(patience_left(&patience), >,
                    300000 - (g_get_monotonic_time() - patience.began));
    g_atomic_int_set(&done, 1);
    g_thread_join(other);
    g_thread_join(vcpu);
    g_assert_no_errno(sched_setaffinity(0, sizeof before, &before));

    patience_start(&patience, 0, 1000000);
    patience.began -= 2000000;
    g_assert_cmpint(patience_left(&patience), <=, -1000000);
    patience.excused = 5000000;
    g_assert_cmpint(patience_left(&patience), >, 3000000);
    patience.wall_end = g_get_monotonic_time();
    g_assert_cmpint(patience_left(&patience), <=, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    folder = g_dir_make_tmp("hv-script-XXXXXX", NULL);
    g_test_add_func("/script/faults", faults);
    g_test_add_func("/script/a-script", a_script);
    g_test_add_func("/script/machines", machines);
    g_test_add_func("/script/wrong-scripts", wrong_scripts);
    g_test_add_func("/script/matrix-and-values", matrix_and_values);
    g_test_add_func("/script/soft", soft_commands);
    g_test_add_func("/script/folder", a_folder);
    g_test_add_func("/script/includes", includes);
    g_test_add_func("/script/marks", marks);
    g_test_add_func("/script/cut-scripts", cut_scripts);
    g_test_add_func("/script/crashes", crashes);
    g_test_add_func("/script/near-misses", near_misses);
    g_test_add_func("/script/pointer", pointer);
    g_test_add_func("/script/results-as-json", results_as_json);
    g_test_add_func("/script/guest-time", guest_time);
    int result = g_test_run();
    g_rmdir(folder);
    g_free(folder);
    return result;
}
