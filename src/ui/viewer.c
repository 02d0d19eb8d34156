/* The viewer; see viewer.h. */
#include "ui/viewer.h"

#include <string.h>

#include "base/error.h"
#include "base/log.h"

enum { DISK_LAMP_US = 150 * 1000, MESSAGE_US = 5 * 1000 * 1000 };

/* --- what commands do ------------------------------------------------------------------------ */

bool viewer_is_over(const struct viewer *viewer)
{
    return viewer->update.gone || viewer->update.model.state == STATE_CRASHED;
}

void viewer_key(struct viewer *viewer, uint8_t usage, bool down)
{
    struct display_message message = { .kind = DISPLAY_KEY, .a = usage, .b = down };
    mouse_flush(&viewer->mouse, viewer->connection);
    connection_send(viewer->connection, &message);
}

static void release_key(void *data, uint8_t usage)
{
    viewer_key(data, usage, false);
}

static void release_keys(struct viewer *viewer)
{
    keyboard_release(&viewer->keyboard, release_key, viewer);
}

void viewer_action(struct viewer *viewer, enum display_action action)
{
    struct display_message message = { .kind = DISPLAY_ACTION, .a = action };
    connection_send(viewer->connection, &message);
}

void viewer_say(struct viewer *viewer, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_free(viewer->message);
    viewer->message = g_strdup_vprintf(format, args);
    va_end(args);
    viewer->message_end = g_get_monotonic_time() + MESSAGE_US;
    viewer->dirty = true;
}

void viewer_grab(struct viewer *viewer, bool grab)
{
    if (viewer->mouse.grabbed == grab)
        return;
    if (!mouse_grab(&viewer->mouse, viewer->window.window, grab))
        viewer_say(viewer, "The mouse cannot be grabbed: %s", SDL_GetError());
    mouse_flush(&viewer->mouse, viewer->connection);
    viewer->dirty = true;
}

void viewer_take_input(struct viewer *viewer)
{
    release_keys(viewer);
    viewer_grab(viewer, false);
    selection_end(viewer, false);
    mouse_let_go(&viewer->mouse);
    mouse_flush(&viewer->mouse, viewer->connection);
}

bool viewer_points(const struct viewer *viewer)
{
    return viewer->update.model.absolute && !viewer->mouse.grabbed && !viewer_is_over(viewer);
}

void viewer_leave(struct viewer *viewer, int status)
{
    if (!viewer->leaving)
        viewer->status = status;
    viewer->leaving = true;
}

static void leave_over(struct viewer *viewer)
{
    bool crashed = viewer->update.model.state == STATE_CRASHED;
    if (crashed)
        viewer_action(viewer, ACTION_POWER_OFF);
    viewer_leave(viewer, crashed ? HV_CRASHED : HV_FAILED);
}

void viewer_show_dialog(struct viewer *viewer, enum dialog_kind kind)
{
    if (kind == DIALOG_CLOSE && viewer_is_over(viewer)) {
        leave_over(viewer);
        return;
    }
    viewer_take_input(viewer);
    panel_open_menu(viewer, MENU_NONE);
    viewer->help = false;
    viewer->dialog = (struct dialog){ .kind = kind };
}

/* --- news of the machine --------------------------------------------------------------------- */

static void show_title(struct viewer *viewer)
{
    g_autofree char *hint =
        g_strdup_printf(" - %s frees the mouse", keyboard_host_name(&viewer->keyboard));
    g_autofree char *title = g_strdup_printf("%s (%s)%s", viewer->name, panel_state_word(viewer),
                                             viewer->mouse.grabbed ? hint : "");
    if (g_strcmp0(title, viewer->title) == 0)
        return;
    SDL_SetWindowTitle(viewer->window.window, title);
    g_free(viewer->title);
    viewer->title = g_steal_pointer(&title);
}

/* On the connection's thread. */
static void wake(void *data)
{
    const uint32_t *type = data;
    SDL_Event event = { .type = *type };
    SDL_PushEvent(&event);
}

static void take_name(struct viewer *viewer)
{
    if (viewer->name[0] || !viewer->update.model.name[0])
        return;
    g_free(viewer->name);
    viewer->name = g_strdup(viewer->update.model.name);
}

static void take_state(struct viewer *viewer, const struct model *before)
{
    const struct model *now = &viewer->update.model;
    if (now->disk != viewer->disk_seen) {
        viewer->dirty |= !viewer->disk_end;
        viewer->disk_end = g_get_monotonic_time() + DISK_LAMP_US;
        viewer->disk_seen = now->disk;
    }
    viewer->dirty |= now->state != before->state || now->lamps != before->lamps ||
                     now->pasting != before->pasting || now->absolute != before->absolute ||
                     now->greeted != before->greeted || strcmp(now->reason, before->reason) != 0;
    if (now->state == STATE_OFF)
        viewer_leave(viewer, HV_OK);
    if (viewer_is_over(viewer) || (now->absolute && !before->absolute))
        viewer_grab(viewer, false);
}

static void take_picture(struct viewer *viewer)
{
    const struct model *model = &viewer->update.model;
    if (!viewer->update.pixels || !model->width)
        return;
    if (model->changed_mode) {
        selection_end(viewer, false); /* its cells are elsewhere now */
        window_mode(&viewer->window, model->width, model->height);
    }
    if (model->changed_mode || model->damage.width) {
        window_upload(&viewer->window, viewer->update.pixels, model->damage);
        viewer->dirty = true;
    }
}

void viewer_take_news(struct viewer *viewer)
{
    struct update before = viewer->update;
    connection_take(viewer->connection, &viewer->update);
    viewer->dirty |= before.gone != viewer->update.gone;
    if (viewer->update.gone && !before.gone && viewer->update.complaint)
        log_warn(viewer->name, "%s", viewer->update.complaint);
    if (viewer->update.signalled)
        viewer_leave(viewer, HV_OK);
    take_name(viewer);
    take_state(viewer, &before.model);
    take_picture(viewer);
}

/* --- between events -------------------------------------------------------------------------- */

int viewer_patience(const struct viewer *viewer)
{
    int64_t end = viewer->disk_end;
    if (viewer->message_end && (!end || viewer->message_end < end))
        end = viewer->message_end;
    if (!end)
        return -1;
    int64_t ms = (end - g_get_monotonic_time()) / 1000 + 1;
    return (int)CLAMP(ms, 1, 60 * 1000);
}

void viewer_settle(struct viewer *viewer)
{
    int64_t now = g_get_monotonic_time();
    mouse_flush(&viewer->mouse, viewer->connection);
    if (viewer->disk_end && now >= viewer->disk_end) {
        viewer->disk_end = 0;
        viewer->dirty = true;
    }
    if (viewer->message_end && now >= viewer->message_end) {
        g_clear_pointer(&viewer->message, g_free);
        viewer->message_end = 0;
        viewer->dirty = true;
    }
    if (!viewer->dirty || viewer->leaving)
        return;
    viewer->dirty = false;
    show_title(viewer);
    window_draw_picture(&viewer->window);
    selection_draw(viewer);
    panel_draw_state(viewer);
    help_draw(viewer);
    dialog_draw(viewer);
    panel_draw(viewer);
    SDL_RenderPresent(viewer->window.renderer);
}

/* --- start and end --------------------------------------------------------------------------- */

bool viewer_start(struct viewer *viewer, int socket, GError **error)
{
    viewer->panel = (struct panel){ .open = MENU_NONE, .hover = MENU_NONE, .item = -1 };
    viewer->event_type = SDL_RegisterEvents(1);
    viewer->dirty = true;
    if (!window_open(&viewer->window, viewer->name, error))
        return false;
    viewer->draw = draw_new(viewer->window.renderer);
    draw_set_density(viewer->draw, viewer->window.density);
    SDL_StopTextInput(); /* keys, not characters: no input method in between */
    viewer_settle(viewer);
    viewer->connection = connection_new(socket, wake, &viewer->event_type, error);
    return viewer->connection != NULL;
}

void viewer_finish(struct viewer *viewer)
{
    if (viewer->connection) {
        release_keys(viewer);
        mouse_let_go(&viewer->mouse);
        mouse_flush(&viewer->mouse, viewer->connection);
    }
    selection_end(viewer, false);
    connection_free(viewer->connection);
    draw_free(viewer->draw);
    window_close(&viewer->window);
    g_free(viewer->message);
    g_free(viewer->title);
}
