/* hv: the command. One verb, one file. */
#include "base/error.h"
#include "base/log.h"
#include "cli/cli.h"

#include <locale.h>
#include <stdio.h>
#include <string.h>

const struct verb verbs[] = {
    { "run", "IMAGE|DIRECTORY [options] [-- COMMAND...]",
      "boot a disk, CD or floppy image or a kernel in a window, or run a command in it", verb_run },
    { "list", "", "the machines that run", verb_list },
    { "info", "[NAME] [--cpus]", "everything about a machine, or what its CPUs do, as JSON",
      verb_info },
    { "open", "[NAME]", "a window on a machine that runs", verb_open },
    { "stop", "[NAME] [--kill|--reset|--pause|--resume]", "press the power button", verb_stop },
    { "screen", "[NAME] --text|--json|--png FILE|--wait REGEX", "what its screen shows",
      verb_screen },
    { "send", "[NAME] key KEYS... | text TEXT | paste | click | move X,Y | scroll N",
      "type, and use the pointer", verb_send },
    { "set", "[NAME] cd=FILE|none, fd=FILE|none, memory=SIZE, net=on|off, port+=RULE, port-=RULE",
      "change CD, floppy, memory, cable or published ports", verb_set },
    { "eject", "[NAME] [cd|fd]", "take the CD, or the floppy, out", verb_eject },
    { "test",
      "FILE... [--check] [--set KEY=VALUE,...] [-j N] [--repeat N] [--until-fail] [--seed N] "
      "[--output DIR] [--junit FILE] [--html FILE] | --resume RUN@STEP | --record FILE IMAGE | "
      "--kernel FILE -- COMMAND...",
      "boot tests, written in a language of their own, or one command in a kernel", verb_test },
    { "vsock", "[NAME] [--listen [--keep]] PORT", "bytes to and from a program in its guest",
      verb_vsock },
    { "image", "info|create|convert|import|resize ...", "disk images: hv image --help",
      verb_image },
    { "devices", "[CLASS]", "the device classes and their options", verb_devices },
    { .name = NULL },
};

void cli_list(const char *command, const struct verb *list)
{
    printf("usage: %s VERB ...\n\n", command);
    for (; list->name; list++)
        printf("  %s %-7s %-42s %s\n", command, list->name, list->arguments, list->help);
}

static void print_help(void)
{
    cli_list("hv", verbs);
    printf("\nThe page of a verb: man hv-run, man hv. Options of hv run: hv run --help.\n"
           "NAME may be left out when one machine runs.\n");
}

int cli_fail(GError *error)
{
    int status = hv_exit_status(error);
    fprintf(stderr, "hv: %s\n", error->message);
    g_error_free(error);
    return status;
}

int cli_usage(const char *verb, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *message = g_strdup_vprintf(format, args);
    va_end(args);
    fprintf(stderr, "hv %s: %s; see hv %s --help\n", verb, message, verb);
    return HV_USAGE;
}

static const struct verb *find_verb(const char *name)
{
    for (const struct verb *verb = verbs; verb->name; verb++)
        if (!strcmp(verb->name, name))
            return verb;
    return NULL;
}

static void print_usage(const char *verb)
{
    const struct verb *v = find_verb(verb);
    printf("usage: hv %s %s\n       %s\n", v->name, v->arguments, v->help);
}

/* What --name, or --name=value, is among the flags; NULL when nothing, after a message. */
static const struct flag *find_flag(const char *verb, const char *word, const struct flag *flags)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    g_autofree char *name = g_strndup(word + 2, strcspn(word + 2, "="));
    for (; flags->name; flags++) {
        if (!strcmp(flags->name, name))
            return flags;
        g_ptr_array_add(names, (void *)(uintptr_t)flags->name);
    }
    g_ptr_array_add(names, NULL);
    const char *near = hv_nearest(name, (const char *const *)names->pdata);
    cli_usage(verb, "unknown option --%s%s%s%s", name, near ? "; did you mean --" : "",
              near ? near : "", near ? "?" : "");
    return NULL;
}

/* -j, -jN: NULL when there is no such letter. */
static const struct flag *find_letter(const char *word, const struct flag *flags)
{
    if (word[0] != '-' || !word[1])
        return NULL;
    while (flags->name && flags->letter != word[1])
        flags++;
    return flags->name ? flags : NULL;
}

int cli_flags(const char *verb, int argc, char **argv, const struct flag *flags)
{
    int left = 0;
    for (int i = 0; i < argc; i++) {
        if (!strcmp(argv[i], "--")) {
            while (++i < argc)
                argv[left++] = argv[i];
            break;
        }
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            print_usage(verb);
            return -2;
        }
        const struct flag *flag = find_letter(argv[i], flags);
        const char *value = flag && argv[i][2] ? argv[i] + 2 : NULL;
        if (!flag && (argv[i][0] != '-' || argv[i][1] != '-')) {
            argv[left++] = argv[i];
            continue;
        }
        if (!flag) {
            flag = find_flag(verb, argv[i], flags);
            if (!flag)
                return -1;
            const char *equals = strchr(argv[i], '=');
            value = equals ? equals + 1 : NULL;
        }
        if (flag->on)
            *flag->on = true;
        if (!flag->value && !flag->values)
            continue;
        if (!value && ++i == argc) {
            cli_usage(verb, "--%s wants a value", flag->name);
            return -1;
        }
        value = value ? value : argv[i];
        if (flag->values)
            g_ptr_array_add(flag->values, (void *)(uintptr_t)value);
        else
            *flag->value = value;
    }
    argv[left] = NULL;
    return left;
}

int main(int argc, char **argv)
{
    setlocale(LC_CTYPE, "");
    if (argc < 2 || !strcmp(argv[1], "help") || !strcmp(argv[1], "--help") ||
        !strcmp(argv[1], "-h")) {
        print_help();
        return argc < 2 ? HV_USAGE : HV_OK;
    }
    if (!strcmp(argv[1], "--version")) {
        puts("hv " HV_VERSION);
        return HV_OK;
    }
    const struct verb *verb = find_verb(argv[1]);
    if (verb)
        return verb->run(argc - 2, argv + 2);
    const char *names[G_N_ELEMENTS(verbs)];
    for (size_t i = 0; i < G_N_ELEMENTS(verbs); i++)
        names[i] = verbs[i].name;
    const char *near = hv_nearest(argv[1], names);
    fprintf(stderr, "hv: there is no verb \"%s\"%s%s%s; hv --help lists them\n", argv[1],
            near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    return HV_USAGE;
}
