/* The host's clipboard, typed into the guest: the machine turns the characters into keys as fast as
 * the guest takes them. */
#include "ui/paste.h"

#include <string.h>

#include "ui/viewer.h"

enum { PASTE_MAX = 64 * 1024 }; /* typing that much takes a guest some 20 minutes */

void paste_clipboard(struct viewer *viewer)
{
    if (viewer->update.model.pasting) { /* there may be no room for both */
        viewer_say(viewer, "What was pasted before is still being typed");
        return;
    }
    char *text = SDL_GetClipboardText();
    size_t length = text ? strlen(text) : 0;
    if (!length)
        viewer_say(viewer, "The clipboard holds no text");
    if (length > PASTE_MAX) {
        length = PASTE_MAX;
        viewer_say(viewer, "Only the first %d KiB of the clipboard are typed", PASTE_MAX / 1024);
    }
    for (size_t done = 0, piece; done < length; done += piece) {
        struct display_message message = { .kind = DISPLAY_PASTE };
        piece = protocol_text_piece(text + done, length - done);
        message.a = (uint32_t)piece;
        memcpy(message.text, text + done, piece);
        connection_send(viewer->connection, &message);
    }
    SDL_free(text);
}
