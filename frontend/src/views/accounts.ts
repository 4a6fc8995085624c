/**
 * The views that are not needed at first, as one part of the page: those of accounts, the history, the trash,
 * conflicts and the sheet of keys.
 */

export { AccountPane } from "./account";
export { Confirm } from "./confirm";
export { ConflictPanel } from "./conflict";
export { Help } from "./help";
export { HistoryPane } from "./history";
export { PeoplePane } from "./people";
export { SignInPane } from "./signin";
export { Share, Standing } from "./standing";
export { TrashPane } from "./trash";
