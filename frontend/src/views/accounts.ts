/** The views that only servers with accounts need, as one part of the page. */

export { AccountPane } from "./account";
export { PeoplePane } from "./people";
export { ShareDialog } from "./share";
export { SignInPane } from "./signin";
