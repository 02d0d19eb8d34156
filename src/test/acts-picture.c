/* Pictures that are to be seen: `see image`, and places that are told by one. */
#include "test/acts.h"

#include "base/error.h"
#include "test/needle.h"

/* A picture, and what came of looking for it. */
struct search {
    struct needle *needle;
    double wanted, best;
    uint32_t x, y;
    unsigned changes; /* of the screen that was looked at */
    bool looked, found;
};

static bool test_picture(struct target *t, void *data, char **note)
{
    struct search *search = data;
    if (!t->view.frame || !t->view.width || (search->looked && search->changes == t->changes))
        return search->found;
    search->looked = true;
    search->changes = t->changes;
    search->found = needle_find(search->needle, t->view.frame, t->view.width, t->view.height,
                                search->wanted, &search->x, &search->y, &search->best);
    if (search->found)
        *note = g_strdup_printf("the picture: on the screen at %u,%u, %.1f %% alike", search->x,
                                search->y, 100 * search->best);
    return search->found;
}

bool act_find_picture(struct run *run, struct target *t, const struct command *command, uint32_t *x,
                      uint32_t *y, GError **error)
{
    enum { ALIKE_PERCENT = 95 };
    const struct token *at = command_value(command, "image", 0), *from, *to;
    const struct token *file = at ? at : command_value(command, "FILE", 0);
    const struct token *similarity = command_value(command, "similarity", 0);
    g_autofree char *path = target_file(t, file->text);
    struct search search = {
        .needle = needle_read(path, error),
        .wanted = (similarity ? (double)similarity->number : ALIKE_PERCENT) / 100,
    };
    if (!search.needle)
        return false;
    for (unsigned i = 0;
         (from = command_value(command, "ignore", i)) && (to = command_value(command, "to", i));
         i++)
        needle_ignore(search.needle,
                      (struct rectangle){ (uint32_t)from->number, (uint32_t)from->second,
                                          (uint32_t)MAX(to->number - from->number + 1, 0),
                                          (uint32_t)MAX(to->second - from->second + 1, 0) });
    bool ok = run_wait(run, t, test_picture, &search, act_within(command, ACT_PATIENCE_S), error);
    if (!ok && error && g_error_matches(*error, HV_ERROR, HV_TIMED_OUT))
        g_prefix_error(error, "the most alike is at %u,%u, %.1f %%; ", search.x, search.y,
                       100 * search.best);
    *x = search.x + search.needle->width / 2;
    *y = search.y + search.needle->height / 2;
    needle_free(search.needle);
    return ok;
}

bool act_see_image(struct run *run, struct target *t, const struct command *command, GError **error)
{
    uint32_t x, y;
    return act_find_picture(run, t, command, &x, &y, error);
}
