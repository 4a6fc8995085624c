/** Where an authorization server sends the window back that Swagger UI opened: it hands over the code, and closes. */

import "swagger-ui-dist/oauth2-redirect.js";
