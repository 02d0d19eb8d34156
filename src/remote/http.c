/* Disks that are files on web servers, by libcurl: read in blocks, of which the last ones that were
 * used are kept. Whoever reads one block after the other finds the next ones on their way.
 *
 * The file must be the one that it was at the first answer: its size, ETag and Last-Modified are
 * compared in every answer, and when one differs nothing more is read. */
#include "base/error.h"
#include "remote/source.h"

#include <curl/curl.h>
#include <errno.h>
#include <string.h>

enum {
    BLOCK = 256 << 10,
    BLOCKS = 192, /* 48 MiB; more than jobs can want at once, for each wants two at most */
    LOADS = 8,    /* at once */
    AHEAD = 4,    /* blocks, for who reads on */
    CONNECT_S = 15,
    SILENCE_S = 20,
    REDIRECTS = 8,
    PAUSE_US = 500 * 1000, /* before a block is tried again, and twice that then */
    PAUSE_MAX_US = 8 * 1000 * 1000,
    VALUE = 256, /* of a header, bytes */
};

enum block_state { BLOCK_FREE, BLOCK_WAITING, BLOCK_LOADING, BLOCK_READY };

struct block {
    enum block_state state;
    uint64_t number, used;
    int64_t first, next, pause; /* WAITING: when it was tried first, when next */
    struct load *load;
    uint8_t *data;
};

/* What an answer says of the file. */
struct validators {
    uint64_t size;
    char etag[VALUE], modified[VALUE];
};

/* A transfer. */
struct load {
    struct http_source *source;
    CURL *easy;
    struct block *block; /* NULL: free */
    size_t length, have;
    /* The answer's head. */
    bool ranged, encoded; /* it has a Content-Range that fits; a Content-Encoding */
    struct validators file;
    char why[CURL_ERROR_SIZE];
};

struct http_source {
    struct source source;
    char *url, *place; /* place: where that led to; NULL: not known */
    CURLM *multi;
    bool opened, gone;  /* gone: the file has changed, or all is lost */
    bool failing;       /* the last block could not be had */
    bool range_refused; /* the first answer: no ranges */
    struct validators file;
    uint64_t clock; /* for block.used */
    struct block blocks[BLOCKS];
    struct load loads[LOADS];
    GError *why; /* why it cannot be opened */
};

/* --- answers -------------------------------------------------------------------------------- */

/* The value, when the line is the header's; NULL. */
static const char *value_of(const char *line, const char *name)
{
    size_t length = strlen(name);
    if (g_ascii_strncasecmp(line, name, length) || line[length] != ':')
        return NULL;
    return line + length + 1 + strspn(line + length + 1, " \t");
}

/* "bytes 0-511/4096" for the range that was asked for. */
static bool range_fits(struct load *load, const char *value)
{
    uint64_t start = load->block->number * BLOCK;
    char *end;
    if (g_ascii_strncasecmp(value, "bytes ", 6) || !g_ascii_isdigit(value[6]))
        return false;
    uint64_t from = g_ascii_strtoull(value + 6, &end, 10);
    if (*end != '-' || !g_ascii_isdigit(end[1]))
        return false;
    uint64_t to = g_ascii_strtoull(end + 1, &end, 10);
    if (*end != '/' || !g_ascii_isdigit(end[1]))
        return false;
    load->file.size = g_ascii_strtoull(end + 1, &end, 10);
    if (*end || from != start || load->file.size > INT64_MAX || load->file.size <= start)
        return false;
    load->length = (size_t)MIN(BLOCK, load->file.size - start);
    return to == start + load->length - 1;
}

/* A line of the head; each answer of a redirection has one, and the last one counts. */
static size_t take_header(char *bytes, size_t size, size_t count, void *opaque)
{
    struct load *load = opaque;
    g_autofree char *line = g_strndup(bytes, size * count);
    g_strchomp(line);
    const char *value;
    if (g_str_has_prefix(line, "HTTP/")) {
        load->ranged = load->encoded = false;
        load->file = (struct validators){ .size = 0 };
    } else if ((value = value_of(line, "Content-Range"))) {
        load->ranged = range_fits(load, value);
    } else if ((value = value_of(line, "Content-Encoding"))) {
        load->encoded = g_ascii_strcasecmp(value, "identity") != 0;
    } else if ((value = value_of(line, "ETag"))) {
        g_strlcpy(load->file.etag, value, VALUE);
    } else if ((value = value_of(line, "Last-Modified"))) {
        g_strlcpy(load->file.modified, value, VALUE);
    }
    return size * count;
}

static bool is_same(const struct validators *a, const struct validators *b)
{
    return a->size == b->size && !strcmp(a->etag, b->etag) && !strcmp(a->modified, b->modified);
}

/* Does the head promise what was asked for? */
static bool promises(const struct load *load, long status)
{
    const struct http_source *h = load->source;
    return status == 206 && load->ranged && !load->encoded &&
           (!h->opened || is_same(&load->file, &h->file));
}

static size_t take_body(char *bytes, size_t size, size_t count, void *opaque)
{
    struct load *load = opaque;
    long status = 0;
    size_t length = size * count;
    curl_easy_getinfo(load->easy, CURLINFO_RESPONSE_CODE, &status);
    if (!promises(load, status) || length > load->length - load->have)
        return 0; /* ends the transfer */
    memcpy(load->block->data + load->have, bytes, length);
    load->have += length;
    return length;
}

/* --- loading -------------------------------------------------------------------------------- */

static bool prepare(struct http_source *h, struct load *load)
{
    CURL *easy = load->easy = curl_easy_init();
    bool secure = !g_ascii_strncasecmp(h->url, "https:", 6);
    if (!easy)
        return false;
    load->source = h;
    curl_easy_setopt(easy, CURLOPT_PRIVATE, load);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, secure ? "https" : "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(easy, CURLOPT_MAXREDIRS, (long)REDIRECTS);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)SILENCE_S);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "hv/" HV_VERSION);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, load);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, load);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, load->why);
    return true;
}

/* Starts the transfer of a block when there is one to spare. */
static void begin_load(struct http_source *h, struct block *block)
{
    struct load *load = h->loads;
    while (load < h->loads + LOADS && load->block)
        load++;
    if (load == h->loads + LOADS)
        return;
    uint64_t start = block->number * BLOCK;
    uint64_t end = h->opened ? MIN(start + BLOCK, h->source.size) : start + BLOCK;
    g_autofree char *range =
        g_strdup_printf("%" G_GUINT64_FORMAT "-%" G_GUINT64_FORMAT, start, end - 1);
    load->block = block;
    load->have = load->length = 0;
    load->ranged = load->encoded = false;
    load->why[0] = 0;
    curl_easy_setopt(load->easy, CURLOPT_URL, h->place ? h->place : h->url);
    curl_easy_setopt(load->easy, CURLOPT_RANGE, range);
    block->state = BLOCK_LOADING;
    block->load = load;
    curl_multi_add_handle(h->multi, load->easy);
}

static void end_load(struct http_source *h, struct load *load)
{
    curl_multi_remove_handle(h->multi, load->easy);
    load->block->load = NULL;
    load->block = NULL;
}

static bool wants(const struct job *job, const struct block *block)
{
    const struct remote_request *r = &job->request;
    uint64_t start = block->number * BLOCK;
    return job->busy && r->op == REMOTE_READ && r->length && r->offset < start + BLOCK &&
           r->offset + r->length > start;
}

static bool is_wanted(const struct http_source *h, const struct block *block)
{
    for (unsigned i = 0; i < REMOTE_SLOTS; i++)
        if (wants(&h->source.jobs[i], block))
            return true;
    return false;
}

static void fail_jobs(struct http_source *h)
{
    for (unsigned i = 0; i < REMOTE_SLOTS; i++)
        if (h->source.jobs[i].busy)
            source_answer(&h->source, &h->source.jobs[i], EIO);
}

/* A block that cannot be had, so far. */
static void drop_block(struct http_source *h, struct block *block)
{
    for (unsigned i = 0; i < REMOTE_SLOTS; i++)
        if (wants(&h->source.jobs[i], block))
            source_answer(&h->source, &h->source.jobs[i], EIO);
    if (block->load)
        end_load(h, block->load);
    block->state = BLOCK_FREE;
}

/* Nothing more is to be had. */
static void end_file(struct http_source *h, const char *why)
{
    source_warn(&h->source, "%s", why);
    h->gone = true;
    fail_jobs(h);
    for (unsigned i = 0; i < BLOCKS; i++)
        if (h->blocks[i].state != BLOCK_FREE)
            drop_block(h, &h->blocks[i]);
}

/* Later again, if it is wanted and not tried for too long. */
static void put_off(struct http_source *h, struct block *block, const char *why)
{
    int64_t now = g_get_monotonic_time();
    block->first = block->first ? block->first : now;
    block->pause = CLAMP(block->pause * 2, PAUSE_US, PAUSE_MAX_US);
    block->next = now + block->pause;
    block->state = BLOCK_WAITING;
    if (!is_wanted(h, block)) {
        block->state = BLOCK_FREE;
        return;
    }
    if (!h->failing && block->next - block->first <= SOURCE_PATIENCE_US) {
        if (block->first == now)
            source_warn(&h->source, "%s; trying again", why);
        return;
    }
    h->failing = true; /* the next ones are tried once */
    drop_block(h, block);
}

/* --- how a transfer ended ------------------------------------------------------------------- */

static void open_failed(struct http_source *h, enum hv_error code, const char *why)
{
    if (!h->why)
        hv_fail(&h->why, code, "%s", why);
}

static void fill_mark(struct http_source *h)
{
    g_autofree char *text = g_strdup_printf("%" G_GUINT64_FORMAT "\n%s\n%s", h->file.size,
                                            h->file.etag, h->file.modified);
    g_autofree char *sum = g_compute_checksum_for_string(G_CHECKSUM_SHA256, text, -1);
    enum { DIGITS = 32 };
    sum[DIGITS] = 0;
    g_strlcpy(h->source.mark, sum, sizeof h->source.mark);
}

static void arrived(struct http_source *h, struct load *load)
{
    struct block *block = load->block;
    char *place = NULL;
    curl_easy_getinfo(load->easy, CURLINFO_EFFECTIVE_URL, &place);
    if (place && !h->place)
        h->place = g_strdup(place);
    if (!h->opened) {
        h->opened = true;
        h->file = load->file;
        h->source.size = h->file.size;
        fill_mark(h);
    }
    if (h->failing)
        source_warn(&h->source, "it can be read again");
    h->failing = false;
    block->state = BLOCK_READY;
    block->first = block->pause = 0;
    end_load(h, load);
}

/* Why a transfer did not bring what it should. */
static void missed(struct http_source *h, struct load *load, CURLcode result, long status)
{
    struct block *block = load->block;
    g_autofree char *why = NULL;
    bool other = status == 206 && load->ranged && h->opened && !is_same(&load->file, &h->file);
    bool refused = status == 200 || (status == 206 && (!load->ranged || load->encoded));
    if (status == 416)
        why = g_strdup(h->opened ? "the file has become smaller" : "the file is empty");
    else if (refused)
        why = g_strdup("the server sends no parts of files (HTTP ranges): fetch the file, and use "
                       "it from here");
    else if (status >= 400)
        why = g_strdup_printf("the server says %ld%s", status, status == 404 ? " (not found)" : "");
    else
        why = g_strdup(*load->why ? load->why : curl_easy_strerror(result));
    end_load(h, load);
    if (!h->opened) {
        block->state = BLOCK_FREE;
        open_failed(h, HV_FAILED, why);
    } else if (other || refused || status == 416) {
        end_file(h, other || status == 416
                        ? "the file on the server has changed: nothing more is read of it"
                        : why);
    } else {
        if (status >= 400) /* perhaps a place that was given for a while */
            g_clear_pointer(&h->place, g_free);
        put_off(h, block, why);
    }
}

static void take_results(struct http_source *h)
{
    CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(h->multi, &left))) {
        struct load *load = NULL;
        long status = 0;
        if (message->msg != CURLMSG_DONE)
            continue;
        CURLcode result = message->data.result;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &load);
        curl_easy_getinfo(message->easy_handle, CURLINFO_RESPONSE_CODE, &status);
        if (!load->block)
            continue;
        if (result == CURLE_OK && promises(load, status) && load->have == load->length)
            arrived(h, load);
        else
            missed(h, load, result, status);
    }
}

/* --- blocks --------------------------------------------------------------------------------- */

static struct block *find_block(struct http_source *h, uint64_t number)
{
    for (unsigned i = 0; i < BLOCKS; i++)
        if (h->blocks[i].state != BLOCK_FREE && h->blocks[i].number == number)
            return &h->blocks[i];
    return NULL;
}

/* Room for another: a free one, or the one that was not used for longest. */
static struct block *take_block(struct http_source *h, uint64_t number)
{
    struct block *oldest = NULL;
    for (unsigned i = 0; i < BLOCKS; i++) {
        struct block *block = &h->blocks[i];
        if (block->state == BLOCK_FREE) {
            oldest = block;
            break;
        }
        if (block->state == BLOCK_READY && !is_wanted(h, block) &&
            (!oldest || block->used < oldest->used))
            oldest = block;
    }
    if (!oldest)
        return NULL;
    uint8_t *data = oldest->data ? oldest->data : g_malloc(BLOCK);
    *oldest = (struct block){
        .state = BLOCK_WAITING, .number = number, .used = ++h->clock, .data = data
    };
    return oldest;
}

/* The next blocks, for who came from the one before. */
static void read_ahead(struct http_source *h, uint64_t number)
{
    uint64_t end = (h->source.size + BLOCK - 1) / BLOCK;
    if (h->failing || !number || !find_block(h, number - 1))
        return;
    for (uint64_t next = number + 1; next <= number + AHEAD && next < end; next++)
        if (!find_block(h, next))
            take_block(h, next);
}

/* Answers a job when all that it wants is here. */
static void try_job(struct http_source *h, struct job *job)
{
    const struct remote_request *r = &job->request;
    uint64_t first = r->offset / BLOCK, last = (r->offset + r->length - 1) / BLOCK;
    if (r->op != REMOTE_READ || !r->length) {
        source_answer(&h->source, job, r->op == REMOTE_READ || r->op == REMOTE_FLUSH ? 0 : EROFS);
        return;
    }
    if (h->gone) {
        source_answer(&h->source, job, EIO);
        return;
    }
    bool ready = true;
    for (uint64_t number = first; number <= last; number++) {
        struct block *block = find_block(h, number);
        if (!block)
            block = take_block(h, number);
        if (block)
            block->used = ++h->clock;
        ready = ready && block && block->state == BLOCK_READY;
        read_ahead(h, number);
    }
    if (!ready)
        return;
    uint64_t at = r->offset, end = at + r->length;
    for (uint64_t number = first; number <= last; number++) {
        const struct block *block = find_block(h, number);
        uint64_t stop = MIN(end, (number + 1) * BLOCK);
        if (!block) /* reading ahead takes none that is wanted */
            return;
        memcpy(job->data + (at - r->offset), block->data + at % BLOCK, stop - at);
        at = stop;
    }
    source_answer(&h->source, job, 0);
}

/* Starts transfers; how long until there is another to start, milliseconds. */
static int start_loads(struct http_source *h)
{
    int64_t now = g_get_monotonic_time(), next = now + 60 * 1000 * 1000;
    for (unsigned i = 0; i < BLOCKS; i++) {
        struct block *block = &h->blocks[i];
        if (block->state == BLOCK_WAITING && block->next <= now)
            begin_load(h, block);
        else if (block->state == BLOCK_WAITING)
            next = MIN(next, block->next);
    }
    return (int)((next - now) / 1000) + 1;
}

static void http_turn(struct source *source, struct pollfd *client)
{
    struct http_source *h = (struct http_source *)source;
    struct curl_waitfd extra = { .fd = client->fd, .events = CURL_WAIT_POLLIN };
    int running;
    for (unsigned i = 0; i < REMOTE_SLOTS; i++)
        if (h->source.jobs[i].busy)
            try_job(h, &h->source.jobs[i]);
    int wait = start_loads(h);
    curl_multi_perform(h->multi, &running);
    take_results(h);
    /* What came may be all that a job waits for, or have ended at once. */
    for (unsigned i = 0; i < REMOTE_SLOTS; i++)
        if (h->source.jobs[i].busy)
            try_job(h, &h->source.jobs[i]);
    wait = MIN(wait, start_loads(h));
    curl_multi_poll(h->multi, &extra, 1, wait, NULL);
    struct pollfd now = { client->fd, POLLIN, 0 };
    client->revents = poll(&now, 1, 0) > 0 ? now.revents : 0;
}

static void http_start(struct source *source, struct job *job)
{
    try_job((struct http_source *)source, job);
}

static void http_give_up(struct source *source)
{
    fail_jobs((struct http_source *)source);
}

static const struct source_class http_class = {
    .start = http_start,
    .turn = http_turn,
    .give_up = http_give_up,
};

/* --- the first answer ----------------------------------------------------------------------- */

/* The URL without user and password, and without what stands behind the file's name. */
static char *plain_url(const char *url)
{
    const char *host = strstr(url, "://");
    host = host ? host + 3 : url;
    size_t name = strcspn(host, "/?#");
    const char *at = memrchr(host, '@', name);
    const char *rest = at ? at + 1 : host;
    return g_strdup_printf("%.*s%.*s", (int)(host - url), url, (int)strcspn(rest, "?#"), rest);
}

static bool open_first(struct http_source *h, GError **error)
{
    h->multi = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? curl_multi_init() : NULL;
    for (unsigned i = 0; i < LOADS; i++)
        if (!h->multi || !prepare(h, &h->loads[i]))
            return hv_fail(error, HV_HOST, "libcurl cannot be started");
    curl_multi_setopt(h->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)LOADS);
    begin_load(h, take_block(h, 0));
    while (!h->opened && !h->why) {
        int running;
        curl_multi_perform(h->multi, &running);
        take_results(h);
        if (!h->opened && !h->why)
            curl_multi_poll(h->multi, NULL, 0, 1000, NULL);
    }
    if (h->why)
        g_propagate_error(error, g_steal_pointer(&h->why));
    return h->opened;
}

struct source *http_source_new(const char *url, GError **error)
{
    struct http_source *h = g_new0(struct http_source, 1);
    h->source.class = &http_class;
    h->source.flags = REMOTE_READONLY | REMOTE_KEEP;
    h->source.name = plain_url(url);
    h->url = g_strdup(url);
    return open_first(h, error) ? &h->source : NULL; /* else the program ends soon */
}
