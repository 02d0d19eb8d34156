/* hv image info and map: what an image is, and where its data are. */
#include "base/error.h"
#include "block/format.h"
#include "cli/cli.h"
#include "cli/image.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct reading {
    bool json, trust;
    const char *format;
    struct image image;
};

/* The options of a verb that reads one image, and the image; else a status in *status. */
static bool start(const char *verb, int argc, char **argv, struct reading *reading, int *status)
{
    const struct flag flags[] = {
        { "json", &reading->json, NULL },
        { "trust-backing", &reading->trust, NULL },
        { "format", NULL, &reading->format },
        { .name = NULL },
    };
    GError *error = NULL;
    int count = cli_flags("image", argc, argv, flags);
    *status = count == -2 ? HV_OK : HV_USAGE;
    if (count < 0)
        return false;
    if (count != 1) {
        cli_usage("image", "%s: one file is wanted", verb);
        return false;
    }
    struct chain_rules rules = { .readonly = true,
                                 .trusted = reading->trust,
                                 .format = reading->format };
    if ((rules.format && !image_format(rules.format, &error)) ||
        !image_start(&reading->image, argv[0], rules, &error)) {
        *status = cli_fail(error);
        return false;
    }
    return true;
}

/* --- info ------------------------------------------------------------------------------------ */

static void tell(void *opaque, const char *key, const char *text, uint64_t number)
{
    json_t *value = text ? json_string(text) : json_integer((json_int_t)number);
    json_object_set_new(opaque, key, value ? value : json_string("?"));
}

/* What the host's disk has of all files of an image. */
static uint64_t allocated(const struct chain *chain)
{
    struct stat info;
    uint64_t sum = stat(chain->path, &info) == 0 ? (uint64_t)info.st_blocks * 512 : 0;
    for (guint i = 0; i < chain->parts->len; i++)
        sum += allocated(g_ptr_array_index(chain->parts, i));
    return sum;
}

static json_t *describe(const struct reading *reading)
{
    const struct chain *chain = reading->image.chain;
    struct disk *disk = reading->image.disk;
    json_t *json =
        json_pack("{s:s, s:s, s:I, s:I}", "file", chain->name, "format", chain->format->name,
                  "size", (json_int_t)disk->size, "allocated", (json_int_t)allocated(chain));
    if (chain->format->tell)
        chain->format->tell(disk, tell, json);
    json_t *below = json_array();
    for (const struct chain *c = chain->below; c; c = c->below)
        json_array_append_new(below,
                              json_pack("{s:s, s:s}", "file", c->name, "format", c->format->name));
    if (json_array_size(below))
        json_object_set(json, "below", below);
    json_decref(below);
    return json;
}

static void print_info(const json_t *info)
{
    const char *key;
    json_t *value, *below;
    size_t i;
    json_object_foreach((json_t *)(uintptr_t)info, key, value)
    {
        bool bytes = !strcmp(key, "size") || !strcmp(key, "allocated");
        g_autofree char *text = bytes ? image_size_text((uint64_t)json_integer_value(value)) : NULL;
        if (text)
            printf("%-12s %s (%" JSON_INTEGER_FORMAT ")\n", key, text, json_integer_value(value));
        else if (json_is_string(value))
            printf("%-12s %s\n", key, json_string_value(value));
        else if (json_is_integer(value))
            printf("%-12s %" JSON_INTEGER_FORMAT "\n", key, json_integer_value(value));
    }
    json_array_foreach(json_object_get(info, "below"), i, below)
        printf("%-12s %s (%s)\n", "lies on", json_string_value(json_object_get(below, "file")),
               json_string_value(json_object_get(below, "format")));
}

int image_info_verb(int argc, char **argv)
{
    struct reading reading = { .json = false };
    int status;
    if (!start("info", argc, argv, &reading, &status))
        return status;
    json_t *info = describe(&reading);
    if (reading.json) {
        json_dumpf(info, stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        print_info(info);
    }
    json_decref(info);
    image_end(&reading.image);
    return HV_OK;
}

/* --- map ------------------------------------------------------------------------------------- */

static bool follows(const struct disk_piece *a, const struct disk_piece *b)
{
    return a->zero == b->zero && a->mapped == b->mapped && a->depth == b->depth &&
           (!a->mapped || a->at + a->length == b->at);
}

static void print_piece(const struct reading *reading, uint64_t start,
                        const struct disk_piece *piece)
{
    const char *comma = start ? "," : "";
    if (!reading->json) {
        if (!piece->zero && piece->mapped)
            printf("%12" PRIu64 " %12" PRIu64 " %5u %12" PRIu64 "\n", start, piece->length,
                   piece->depth, piece->at);
        else if (!piece->zero)
            printf("%12" PRIu64 " %12" PRIu64 " %5u %12s\n", start, piece->length, piece->depth,
                   "packed");
        return;
    }
    printf("%s\n  { \"start\": %" PRIu64 ", \"length\": %" PRIu64 ", \"depth\": %u, \"zero\": %s",
           comma, start, piece->length, piece->depth, piece->zero ? "true" : "false");
    if (piece->mapped)
        printf(", \"offset\": %" PRIu64, piece->at);
    printf(" }");
}

/* Pieces that go on in each other are one. 0 or a positive errno. */
static int print_map(const struct reading *reading)
{
    struct disk *disk = reading->image.disk;
    struct disk_piece last = { .length = 0 }, piece;
    uint64_t start = 0;
    for (uint64_t at = 0; at < disk->size; at += piece.length) {
        int error = disk_piece(disk, at, disk->size - at, &piece);
        if (error)
            return error;
        if (last.length && follows(&last, &piece)) {
            last.length += piece.length;
            continue;
        }
        if (last.length)
            print_piece(reading, start, &last);
        start = at;
        last = piece;
    }
    print_piece(reading, start, &last);
    return 0;
}

int image_map_verb(int argc, char **argv)
{
    struct reading reading = { .json = false };
    GError *error = NULL;
    int status;
    if (!start("map", argc, argv, &reading, &status))
        return status;
    if (reading.json)
        printf("[");
    else
        printf("%12s %12s %5s %12s\n", "start", "length", "depth", "offset");
    int reason = print_map(&reading);
    if (reading.json)
        printf("\n]\n");
    if (reason)
        hv_fail(&error, HV_FAILED, "%s: %s", argv[0], g_strerror(reason));
    image_end(&reading.image);
    return error ? cli_fail(error) : HV_OK;
}
